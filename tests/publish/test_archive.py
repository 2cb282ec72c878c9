"""Images in one file: what is loaded is what was saved, and nothing of a file that is not whole."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from fixtures.archives import unpack
from fixtures.tasks import Invoke
from slurm_testbed.errors import PublishError
from slurm_testbed.images import exists
from slurm_testbed.publish import load, save
from slurm_testbed.releases import Release
from tests.publish.conftest import Signing
from tests.publish.test_push import quiet


@pytest.fixture
def names(
    client: docker.DockerClient, small: str, slurm_release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[str]:
    """The small image, also as its minor release, and its source, under names of this test alone."""
    prefix = f"{small}/{tmp_path.name.replace('_', '-')}"
    monkeypatch.setenv("REPOSITORY", prefix)
    made = []
    for name in ("slurm-client", "slurm-source"):
        made.append(f"{prefix}/{name}:{slurm_release}")
        client.images.get(f"{small}/small/{name}:{slurm_release}").tag(made[-1])
    made.append(f"{prefix}/slurm-client:{slurm_release.minor}")
    client.images.get(made[0]).tag(made[-1])
    return made


@pytest.fixture(autouse=True)
def remove_names(client: docker.DockerClient, names: list[str]) -> Iterator[None]:
    yield
    for name in names:
        if exists(client, name):
            client.images.remove(name, noprune=True)


@pytest.fixture
def saved(names: list[str], slurm_release: Release, signing: Signing, tmp_path: Path) -> Path:
    """A signed file with both."""
    save(tmp_path / "slurm.tar", ["slurm-client"], [slurm_release], signer=signing.ours, say=quiet)
    return tmp_path / "slurm.tar"


def rewritten(file: Path, change: dict[str, bytes]) -> Path:
    """The same file with other contents of some members."""
    folder = file.with_name("unpacked")
    with tarfile.open(file) as archive:
        order = archive.getnames()
        unpack(archive, folder)
    for name, content in change.items():
        (folder / name).write_bytes(content)
    target = file.with_name("changed.tar")
    with tarfile.open(target, "w") as archive:
        for name in [*order, *(name for name in change if name not in order)]:
            archive.add(folder / name, name)
    return target


@pytest.mark.row("U-06.3")
def test_saved_images_are_loaded_as_they_were(
    client: docker.DockerClient, names: list[str], saved: Path, signing: Signing
) -> None:
    ids = {name: client.images.get(name).id for name in names}
    for name in names:
        client.images.remove(name, noprune=True)

    loaded = load(saved, signing.by_us, say=quiet)

    assert sorted(loaded) == sorted(names)
    assert {name: client.images.get(name).id for name in names} == ids
    with tarfile.open(saved) as archive:
        assert archive.getnames()[:2] == ["SHA256SUMS", "SHA256SUMS.sig"]
        bills = [name for name in archive.getnames() if name.endswith(".spdx.json")]
        assert len(bills) == 2
        bill = json.load(archive.extractfile(bills[0]))  # type: ignore[arg-type]
    assert "moon-buggy" in {package["name"] for package in bill["packages"]}


def test_checksums_are_those_of_sha256sum(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "by-hand"
    with tarfile.open(saved) as archive:
        unpack(archive, folder)

    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=False)

    assert done.returncode == 0


@pytest.mark.row("U-06.3")
@pytest.mark.parametrize("where", [0.3, 0.9])
def test_file_that_was_cut_short_loads_nothing(
    client: docker.DockerClient, names: list[str], saved: Path, signing: Signing, where: float
) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * where)])
    for name in names:
        client.images.remove(name, noprune=True)

    with pytest.raises(PublishError, match="is damaged"):
        load(saved, signing.by_us, say=quiet)

    assert not any(exists(client, name) for name in names)


@pytest.mark.row("U-06.3")
def test_file_with_a_changed_byte_loads_nothing(
    client: docker.DockerClient, names: list[str], saved: Path, signing: Signing
) -> None:
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    for name in names:
        client.images.remove(name, noprune=True)

    with pytest.raises(PublishError, match=r"the SHA-256 of images\.tar\.gz is"):
        load(saved, signing.by_us, say=quiet)

    assert not any(exists(client, name) for name in names)


@pytest.mark.row("U-06.3")
def test_checksums_that_somebody_else_wrote_are_not_believed(saved: Path, signing: Signing) -> None:
    with tarfile.open(saved) as archive:
        sums = archive.extractfile("SHA256SUMS").read()  # type: ignore[union-attr]
    changed = rewritten(saved, {"SHA256SUMS": b"\n".join(reversed(sums.splitlines())) + b"\n"})

    with pytest.raises(PublishError, match="cosign verify-blob"):
        load(changed, signing.by_us, say=quiet)
    with pytest.raises(PublishError, match="cosign verify-blob"):
        load(saved, signing.by_them, say=quiet)


def test_file_with_one_more_member_is_refused(saved: Path, signing: Signing) -> None:
    with pytest.raises(PublishError, match="it has .*extra.*, and its checksums"):
        load(rewritten(saved, {"extra": b"x"}), signing.by_us, say=quiet)


def test_unsigned_file_is_refused_where_a_signature_is_asked_for(
    names: list[str], slurm_release: Release, signing: Signing, tmp_path: Path
) -> None:
    file = tmp_path / "unsigned.tar"
    save(file, ["slurm-client"], [slurm_release], signer=None, say=quiet)

    with pytest.raises(PublishError, match="is not signed"):
        load(file, signing.by_us, say=quiet)

    assert sorted(load(file, None, say=quiet)) == sorted(names)


def test_file_that_is_none_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("no archive")

    with pytest.raises(PublishError, match="is damaged, or not of invoke save"):
        load(tmp_path / "x.tar", None, say=quiet)
    with pytest.raises(PublishError, match="cannot be read: No such file"):
        load(tmp_path / "y.tar", None, say=quiet)


@pytest.mark.parametrize("where", ["in its images", "at its last byte"])
def test_disk_that_is_full_leaves_the_older_file_as_it_was(
    names: list[str], slurm_release: Release, tmp_path: Path, where: str
) -> None:
    file = tmp_path / "slurm.tar"
    save(file, ["slurm-client"], [slurm_release], signer=None, say=quiet)
    room = file.stat().st_size - 1 if where == "at its last byte" else 1_000_000
    file.write_text("the older one")
    # No file may grow larger: what a full disk does, without filling one.
    script = f"""
import resource
from pathlib import Path
from slurm_testbed.publish import save
from slurm_testbed.releases import Releases
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
save(Path({str(file)!r}), ["slurm-client"], [Releases.load().find({slurm_release.version!r})], signer=None)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert f"PublishError: {file} cannot be written: File too large" in done.stderr, done.stderr
    assert file.read_text() == "the older one"
    assert [path.name for path in tmp_path.iterdir()] == ["slurm.tar"], "something half made was left"


@pytest.mark.deep
def test_tasks_save_and_load(
    names: list[str], slurm_release: Release, signing: Signing, keys: Path, invoke: Invoke, tmp_path: Path
) -> None:
    file = str(tmp_path / "slurm.tar")
    what = ["--image", "slurm-client", "--release", slurm_release.minor]

    saved = invoke("save", file, *what, "--key", str(keys / "ours/cosign.key"))
    loaded = invoke("load", file, "--key", str(keys / "ours/cosign.pub"))
    refused = invoke("load", file, "--key", str(keys / "theirs/cosign.pub"))

    assert (saved.returncode, sorted(saved.stdout.split())) == (0, sorted(names)), saved.stderr
    assert (loaded.returncode, sorted(loaded.stdout.split())) == (0, sorted(names)), loaded.stderr
    assert refused.returncode == 1, refused.stdout
    assert "Traceback" not in refused.stderr
