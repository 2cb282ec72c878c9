"""A registry with TLS and a password, a signer's keys, and small images that stand for ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from fixtures.registry import RegistryUnderTest, build_images, cosign_of, key_pair, serving
from slurm_testbed import engine
from slurm_testbed.publish import Published, Signer, Verifier, push
from slurm_testbed.releases import Release


@pytest.fixture(scope="session")
def client() -> docker.DockerClient:
    return engine.connect()


@pytest.fixture(scope="session")
def small(slurm_release: Release) -> str:
    """What stands before the names of the small images and the registry's."""
    return build_images(slurm_release)


@pytest.fixture(scope="module")
def running(
    client: docker.DockerClient, small: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryUnderTest]:
    """A registry for the tests of a module: each has folders of its own in it."""
    with serving(client, tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def registry(running: RegistryUnderTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RegistryUnderTest:
    """A registry to which docker's configuration has the password."""
    running.log_in(monkeypatch, tmp_path / "docker")
    return running


@pytest.fixture(scope="module")
def keys(running: RegistryUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cosign, and with pairs of keys in `ours` and `theirs`."""
    folder = tmp_path_factory.mktemp("keys")
    program = cosign_of(running, folder)
    for name in ("ours", "theirs"):
        key_pair(program, folder / name)
    return folder


@dataclass(frozen=True)
class Signing:
    """Who signs and who checks.

    Attributes:
        ours: signs.
        by_us: checks what we sign.
        by_them: checks what others sign.
    """

    ours: Signer
    by_us: Verifier
    by_them: Verifier


@pytest.fixture
def signing(keys: Path, monkeypatch: pytest.MonkeyPatch) -> Signing:
    """cosign on the PATH, and keys."""
    monkeypatch.setenv("PATH", f"{keys}:{os.environ['PATH']}")
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    by = [Verifier(str(keys / name / "cosign.pub")) for name in ("ours", "theirs")]
    return Signing(Signer(str(keys / "ours/cosign.key")), *by)


Pushing = Callable[..., list[Published]]


@pytest.fixture
def pushing(small: str, slurm_release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pushing:
    """Push the small image and its source; `kind` is another pair of them."""

    def run(address: str, *, kind: str = "small", **options: object) -> list[Published]:
        monkeypatch.setenv("REPOSITORY", f"{small}/{kind}")
        options = {"signer": None, "pages": tmp_path / "pages", "say": lambda _: None, **options}
        return push(address, ["slurm-client"], [slurm_release], **options)  # type: ignore[arg-type]

    return run
