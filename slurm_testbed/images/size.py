"""How large images are."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import docker
import docker.errors

from slurm_testbed.errors import EngineError


@dataclass(frozen=True)
class Size:
    """The size of an image in bytes; `compressed` is None where it was not asked for."""

    uncompressed: int
    compressed: int | None = None


def sizes(client: docker.DockerClient, names: Sequence[str], *, compressed: bool = False) -> dict[str, Size]:
    """The sizes of images.

    Args:
        client: the engine.
        names: the images.
        compressed: also compress each as gzip does, which takes some 5 s for 100 MB.

    Raises:
        EngineError: there is no such image.

    Example:
        >>> from slurm_testbed import engine
        >>> sizes(engine.connect(), [])
        {}
    """
    found = {}
    for name in names:
        try:
            image = client.images.get(name)
        except docker.errors.ImageNotFound:
            raise EngineError(f"there is no image {name}", hint="build it: invoke build") from None
        found[name] = Size(
            int(image.attrs["Size"]), _compressed(image.save(chunk_size=1 << 20)) if compressed else None
        )
    return found


def _compressed(chunks: Iterator[bytes]) -> int:
    """How many bytes a stream has when gzip has compressed it."""
    packer = zlib.compressobj(wbits=31)
    return sum(len(packer.compress(chunk)) for chunk in chunks) + len(packer.flush())
