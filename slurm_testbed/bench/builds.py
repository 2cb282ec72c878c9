"""The measures of the images: their sizes and their builds."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
import docker.errors

from slurm_testbed import data, engine, images
from slurm_testbed.bench.inside import Bench
from slurm_testbed.bench.measure import Samples
from slurm_testbed.children import output_of
from slurm_testbed.errors import SlurmTestbedError

#: The images that are built, as the goal of a cold build names them.
BUILT = ("base", "slurm-client", "slurm-single-node")


def sizes(bench: Bench) -> Samples:
    """The sizes of the two images that people run, in MB."""
    names = {
        "client": images.image_name("slurm-client", bench.release),
        "single-node": bench.image,
    }
    found = images.sizes(bench.client, list(names.values()), compressed=bench.compressed)
    while True:
        sample = {f"size-{kind}": found[name].uncompressed / 1e6 for kind, name in names.items()}
        for kind, name in names.items():
            if (compressed := found[name].compressed) is not None:
                sample[f"size-{kind}-compressed"] = compressed / 1e6
        yield sample


class _Builder:
    """Builds from a copy of images/ into a repository of its own, and removes both at the end."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.mark = f"bench-{secrets.token_hex(4)}"
        self._repository = f"{images.REPOSITORY}/{self.mark}"
        self._made: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Builder:
        with contextlib.ExitStack() as stack:
            parent = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-testbed-bench-")))
            self.folder = parent / "images"
            shutil.copytree(data.images(), self.folder)
            stack.enter_context(_environment("REPOSITORY", self._repository))
            stack.callback(self._remove_images)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def build(self, *options: str) -> float:
        """Build the images with further options of bake, and return the seconds that it took."""
        began = time.perf_counter()
        built = images.build(
            BUILT, [self.bench.release], folder=self.folder, say=lambda _: None, run=_bake_with(options)
        )
        seconds = time.perf_counter() - began
        for tag in (tag for image in built for tag in image.tags):
            before, self._made[tag] = self._made.get(tag), str(self.bench.client.images.get(tag).id)
            if before not in {None, self._made[tag]}:
                self._remove_untagged(str(before))
        return seconds

    def forget_caches(self) -> None:
        """Give every cache mount an id of its own, so that the next build finds all of them empty."""
        self._stack.callback(self._remove_caches)
        for dockerfile in self.folder.rglob("Dockerfile"):
            text = dockerfile.read_text()
            dockerfile.write_text(with_own_caches(text, self.mark))

    def change_entrypoint(self) -> None:
        """Add a line to the entry point, another one each time."""
        with (self.folder / "slurm/rootfs/usr/bin/slurm-entrypoint").open("a") as file:
            file.write(f"# {self.mark} {secrets.token_hex(4)}\n")

    def _remove_images(self) -> None:
        # Whatever stands in our repository: an interrupted build may have left what we never saw.
        tags = {tag for image in self.bench.client.images.list() for tag in image.tags}
        for tag in sorted(tag for tag in tags if tag.startswith(f"{self._repository}/")):
            with contextlib.suppress(docker.errors.ImageNotFound):
                self.bench.client.images.remove(tag)

    def _remove_untagged(self, image: str) -> None:
        # Never by force: an equal build may carry somebody else's tag.
        with contextlib.suppress(docker.errors.ImageNotFound, docker.errors.APIError):
            if not self.bench.client.images.get(image).tags:
                self.bench.client.images.remove(image)

    def _remove_caches(self) -> None:
        env = engine.environment()
        usage = ["docker", "buildx", "du", "--verbose"]
        listed = subprocess.run(usage, env=env, capture_output=True, text=True, check=False).stdout
        for record in cache_records(listed, self.mark):
            # By their ids, one by one: a filter that does not match must not prune what is others'.
            prune = ["docker", "buildx", "prune", "--force", "--filter", f"id={record}"]
            subprocess.run(prune, env=env, capture_output=True, check=False)


def with_own_caches(dockerfile: str, mark: str) -> str:
    """A Dockerfile whose cache mounts have ids that begin with a mark.

    Args:
        dockerfile: its text.
        mark: what no other cache begins with.

    Raises:
        SlurmTestbedError: a cache mount is written in another way than ours are.

    Example:
        >>> with_own_caches("RUN --mount=type=cache,target=/root/.cache/ccache make", "x")
        'RUN --mount=type=cache,id=x/root/.cache/ccache,target=/root/.cache/ccache make'
    """
    text = re.sub(r"type=cache,target=([^,\s]+)", rf"type=cache,id={mark}\1,target=\1", dockerfile)
    if other := re.findall(rf"type=cache(?!,id={re.escape(mark)})\S*", text):
        raise SlurmTestbedError(
            f"no cold build: the cache mount {other[0]} cannot be given an id of its own",
            hint="write cache mounts as type=cache,target=…",
        )
    return text


def cache_records(listed: str, mark: str) -> list[str]:
    """The ids of the cache mounts whose id begins with a mark, from `docker buildx du --verbose`."""
    # A description holds the whole command, which may have many lines.
    records = re.split(r"^ID:\s*", listed, flags=re.MULTILINE)[1:]
    return [record.split()[0] for record in records if re.search(rf'with id "/?{re.escape(mark)}/', record)]


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _bake_with(options: Sequence[str]) -> images.Runner:
    """Runs bake with further options and keeps its output; an interrupt ends it."""
    return lambda argv, env, cwd: output_of([*argv, *options, "--progress=plain"], env=env, cwd=cwd)


def build_cold(bench: Bench) -> Samples:
    """A build that finds every cache empty."""
    while True:
        with _Builder(bench) as builder:
            builder.forget_caches()
            seconds = builder.build("--no-cache")
        yield {"build-cold": seconds}


def build_warm(bench: Bench) -> Samples:
    """A build after which nothing was changed."""
    with _Builder(bench) as builder:
        builder.build()
        while True:
            yield {"build-warm": builder.build()}


def build_entrypoint(bench: Bench) -> Samples:
    """A build after a line of the entry point was changed."""
    with _Builder(bench) as builder:
        builder.build()
        while True:
            builder.change_entrypoint()
            yield {"build-entrypoint": builder.build()}
