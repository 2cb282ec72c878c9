"""An engine without images, programs that stand in for others, and builds that run nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from slurm_testbed import engine, images
from slurm_testbed.engine import Machine
from slurm_testbed.releases import Release

RELEASE = Release("24.11.5")


STEP = "[slurm-client source 2/2] RUN --mount=type=secret,id=ca A_B=$([ ! -s /x ] || echo y) /build/fetch-source"


@dataclass
class FakeImage:
    """An image of the fake engine."""

    content: bytes = b""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def attrs(self) -> dict[str, Any]:
        """What inspection tells; the engine writes nanoseconds."""
        created = self.created.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"
        return {"Size": len(self.content), "Created": created}

    def save(self, chunk_size: int) -> Iterator[bytes]:
        """The image as a stream of chunks."""
        for start in range(0, len(self.content), chunk_size):
            yield self.content[start : start + chunk_size]


@dataclass
class FakeClient:
    """An engine that knows images by name, and imports files."""

    known: dict[str, FakeImage] = field(default_factory=dict)
    machine: str = field(default_factory=platform.machine)
    answer: str = '{"status":"sha256:1"}'

    @property
    def images(self) -> FakeClient:
        """Its images."""
        return self

    @property
    def api(self) -> FakeClient:
        """Its low-level interface."""
        return self

    def get(self, name: str) -> FakeImage:
        """An image by name."""
        if name not in self.known:
            raise docker.errors.ImageNotFound(name)
        return self.known[name]

    def info(self) -> dict[str, str]:
        """What the engine says of itself."""
        return {"Architecture": self.machine}

    def import_image_from_file(self, path: str, *, repository: str, tag: str, changes: list[str]) -> str:
        """Make an image of a file."""
        self.known[f"{repository}:{tag}"] = FakeImage(Path(path).read_bytes() + changes[0].encode())
        return self.answer


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """An engine without images, and without a registry."""
    fake = FakeClient()
    monkeypatch.setattr(engine, "connect", lambda: fake)
    monkeypatch.setattr(engine, "environment", lambda: {"PATH": os.environ["PATH"]})
    monkeypatch.setattr(engine, "registry_answers", lambda _, **__: False)
    return fake


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], Path]:
    """Puts a shell script onto the PATH, before everything else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = f"{folder}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(engine, "THIS", Machine(environ={**os.environ, "PATH": path}))

    def write(name: str, script: str) -> Path:
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    return write


@pytest.fixture
def said() -> list[str]:
    """What was said."""
    return []


META = "  Meta:\t1\n  Name:\tslurm\n  Major:\t25\n  Version:\t25.05.1\n  Release:\t1\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the build looks at in a tree of Slurm."""
    folder = tmp_path / "slurm-main"
    (folder / "src").mkdir(parents=True)
    (folder / "META").write_text(META)
    (folder / "src/slurm.c").write_text("int main;")
    return folder


@dataclass
class FakeRun:
    """Runs nothing: notes what was asked, and ends as it is told for a version."""

    client: FakeClient
    ends: dict[str, tuple[int, str]] = field(default_factory=dict)
    calls: list[tuple[Sequence[str], Mapping[str, str]]] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], env: Mapping[str, str], _: Path) -> tuple[int, str]:
        """Run bake."""
        self.calls.append((argv, env))
        for name in ("slurm-client", "slurm-jupyter", "slurm-single-node", "viz-app"):
            self.client.known[images.image_name(name, env["VERSION"])] = FakeImage(b"12345")
        return self.ends.get(env["VERSION"], (0, ""))


@pytest.fixture
def run(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A build that succeeds at once, on a base that is here."""
    monkeypatch.delenv("REPOSITORY", raising=False)
    client.known["debian:trixie-slim"] = FakeImage()
    return FakeRun(client)


def build(run: FakeRun, said: list[str], *arguments: Any, **options: Any) -> list[images.BuiltImage]:
    """Build with the fake runner."""
    return images.build(*arguments, say=said.append, run=run, **options)
