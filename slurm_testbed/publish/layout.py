"""An image of the engine as a registry takes it: layers compressed, and always to the same bytes."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from pathlib import Path
from typing import IO, Any, cast

import docker

from slurm_testbed.publish import oci
from slurm_testbed.publish.streams import Chunks, digest_of_file

_GZIP_MAGIC = b"\x1f\x8b"
#: Images travel more often than they are made, but 9 takes twice the time of 6 for a hundredth of the size.
_LEVEL = 6


class Layouts:
    """Images in a folder; what several share is compressed once.

    Args:
        client: the engine.
        folder: an empty folder, with room for all images.
    """

    def __init__(self, client: docker.DockerClient, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._layers: dict[str, oci.Blob] = {}

    def manifest(self, name: str) -> tuple[oci.Blob, list[oci.Blob]]:
        """The manifest of an image, with its platform, and the blobs to which it refers.

        Args:
            name: the image.

        Example:
            >>> Layouts(engine.connect(), Path("/tmp/x")).manifest("slurm-client:24.11")[0].extra  # doctest: +SKIP
            {'platform': {'architecture': 'amd64', 'os': 'linux'}}
        """
        saved = self._folder / "saved"
        saved.mkdir()
        try:
            self._save(name, saved)
            # Every engine writes this file, whatever else; its paths say where the rest is.
            (entry,) = json.loads((saved / "manifest.json").read_text())
            config = self._config(saved / entry["Config"])
            content: dict[str, Any] = json.loads(config.content)
            diffs = content["rootfs"]["diff_ids"]
            layers = [self._layer(diff, saved / path) for diff, path in zip(diffs, entry["Layers"], strict=True)]
        finally:
            shutil.rmtree(saved)
        platform = {key: content[key] for key in ("architecture", "os", "variant") if content.get(key)}
        return oci.manifest(config, layers, platform=platform), [*layers, config]

    def _save(self, name: str, folder: Path) -> None:
        chunks = self._client.images.get(name).save(chunk_size=1 << 20)
        with tarfile.open(fileobj=cast(IO[bytes], Chunks(chunks)), mode="r|") as archive:
            # No argument, which Python 3.11.2, Debian 12's, has not.
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            archive.extractall(folder)  # noqa: S202  # what the engine itself packed

    def _config(self, path: Path) -> oci.Blob:
        content = path.read_bytes()
        return oci.Blob(oci.CONFIG, digest_of_file(path), len(content), content=content)

    def _layer(self, diff: str, path: Path) -> oci.Blob:
        if diff not in self._layers:
            target = self._folder / diff.replace(":", "-")
            with path.open("rb") as file:
                compressed = file.read(2) == _GZIP_MAGIC
            if compressed:  # an engine with containerd's store keeps layers as they came
                path.rename(target)
            else:
                _compress(path, target)
            self._layers[diff] = oci.Blob(oci.LAYER, digest_of_file(target), target.stat().st_size, target)
        return self._layers[diff]


def _compress(path: Path, target: Path) -> None:
    """Compress without name and time, so that the same layer is the same blob wherever it is compressed."""
    with path.open("rb") as file, target.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed:
        shutil.copyfileobj(file, packed, 1 << 20)
