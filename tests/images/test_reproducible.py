"""Two builds of one revision, each from nothing: the same files, and what differs is known."""

from __future__ import annotations

import hashlib
import io
import secrets
import tarfile
from collections.abc import Iterable
from typing import cast

import docker
import pytest

from slurm_testbed import engine, images
from slurm_testbed.children import output_of
from slurm_testbed.releases import Release
from tests.images.conftest import our_labels

#: What two builds of one revision differ in, and why; docs/publishing.md says it too.
DIFFERS = {
    "usr/share/slurm-testbed/database.tar.gz": "the times at which MariaDB's tables were made",
}

File = tuple[bytes, int, int, int, str, str]


def files(client: docker.DockerClient, image: str) -> dict[str, File]:
    """Everything in an image by its path: type, mode, owner, group, where a link goes, digest of the content."""
    name = f"slurm-image-{secrets.token_hex(4)}"
    container = client.containers.create(image, ["none"], name=name, labels=our_labels(name))
    try:
        exported = cast(Iterable[bytes], container.export())
        with tarfile.open(fileobj=io.BytesIO(b"".join(exported))) as archive:
            return {
                member.name: (
                    member.type,
                    member.mode,
                    member.uid,
                    member.gid,
                    member.linkname,
                    digest(archive, member),
                )
                for member in archive
            }
    finally:
        container.remove(v=True)


def digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    """The digest of a file; empty for what is none."""
    # A symbolic link may lead nowhere.
    content = None if member.issym() else archive.extractfile(member)
    return hashlib.sha256(content.read()).hexdigest() if content else ""


@pytest.mark.deep
def test_two_builds_of_one_revision_have_the_same_files(
    own_repository: str, monkeypatch: pytest.MonkeyPatch, slurm_release: Release
) -> None:
    monkeypatch.setenv("REPOSITORY", own_repository)
    client = engine.connect()
    builds = []
    for _ in range(2):
        built = images.build(
            ["slurm-client", "slurm-single-node"],
            [slurm_release],
            run=lambda argv, env, cwd: output_of([*argv, "--no-cache", "--progress=plain"], env=env, cwd=cwd),
        )
        builds.append({one.name: files(client, one.name) for one in built})

    for image, first in builds[0].items():
        second = builds[1][image]
        assert first.keys() == second.keys()
        assert {path for path in first if first[path] != second[path]} <= DIFFERS.keys(), image
