"""Images: sources of one's own."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_testbed import images
from slurm_testbed.errors import UsageError


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_tarball_says_its_version(checkout: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"slurm.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as archive:  # type: ignore[call-overload]
        archive.add(checkout, "slurm-25.05.1")

    with images.given_source(path) as given:
        assert given.version == "25.05.1"
        assert [file.name for file in given.folder.iterdir()] == [path.name]
        assert (given.folder / path.name).read_bytes() == path.read_bytes()

    assert not given.folder.exists(), "the temporary folder is left"
    assert path.exists(), "the tarball is gone"


def test_folder_is_given_as_it_is(checkout: Path) -> None:
    with images.given_source(checkout) as given:
        assert (given.folder, given.version, given.name) == (checkout, "25.05.1", "slurm-main")

    assert checkout.exists()


def test_checkout_is_packed_without_history_and_objects(checkout: Path) -> None:
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (checkout / ".gitignore").write_text("*.o\n")
    (checkout / "gone.c").touch()
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=all"], check=True)
    (checkout / "src/slurm.o").touch()
    (checkout / "src/new.c").touch()
    (checkout / "gone.c").unlink()

    with images.given_source(checkout) as given:
        (tarball,) = given.folder.iterdir()
        with tarfile.open(tarball) as archive:
            names = archive.getnames()

    assert names == ["slurm/.gitignore", "slurm/META", "slurm/src/new.c", "slurm/src/slurm.c"]
    assert ".tar." in tarball.name, "the build looks for *.tar.*"


def _other_tarball(folder: Path) -> Path:
    path = folder / "other.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("other-1.0/README"), io.BytesIO())
    return path


def _broken_tarball(folder: Path) -> Path:
    path = folder / "slurm.tar.gz"
    path.write_bytes(b"not found")
    return path


def _cut_tarball(folder: Path) -> Path:
    path = _other_tarball(folder)
    path.write_bytes(path.read_bytes()[:40])
    return path


def _text(folder: Path) -> Path:
    path = folder / "slurm.txt"
    path.touch()
    return path


def _folder(folder: Path) -> Path:
    return folder


def _odd_meta(folder: Path) -> Path:
    (folder / "META").write_text("Name: slurm\n")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nothing", "the source .*nothing does not exist"),
        (_other_tarball, r"other\.tar\.gz is no source of Slurm: it has no META"),
        (_broken_tarball, r"slurm\.tar\.gz cannot be unpacked"),
        (_cut_tarball, r"other\.tar\.gz cannot be unpacked"),
        (_text, r"slurm\.txt is neither a tarball nor a folder"),
        (_folder, "is no source of Slurm: it has no META"),
        (_odd_meta, "is no source of Slurm: its META has no version"),
    ],
)
def test_what_is_no_source_is_refused_with_what_would_be(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error, images.given_source(make(tmp_path)):
        pass

    assert "give a tarball of Slurm" in error.value.hint
