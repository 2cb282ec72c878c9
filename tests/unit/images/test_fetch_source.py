"""build/fetch-source: a commit of a repository, in place of a tarball."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from slurm_testbed import data


def git(*arguments: str, repository: Path) -> str:
    """What git says."""
    author = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    argv = ["git", *author, "-C", str(repository), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a source of Slurm, which has changed since the release."""
    path = tmp_path / "slurm.git"
    git("init", "--quiet", str(path), repository=tmp_path)
    for version in ("25.11.7", "25.11.8"):
        (path / "META").write_text(f"Version: {version}\n")
        git("add", "META", repository=path)
        git("commit", "--quiet", f"--message=Release {version}", repository=path)
    return path


def fetch(folder: Path, url: str, commit: str) -> subprocess.CompletedProcess[str]:
    """Run fetch-source in ./src, with one release in its table."""
    for name in ("build", "src", "given"):
        (folder / name).mkdir()
    script = shutil.copy(data.images() / "slurm/build/fetch-source", folder / "build")
    (folder / "build/sources.tsv").write_text(f"25.11.7\tgit\t{url}\t-\t{commit}\n")
    argv = ["bash", script, "25.11.7", str(folder / "given")]
    return subprocess.run(argv, cwd=folder / "src", capture_output=True, text=True, check=False)


def test_commit_is_taken_as_it_was(tmp_path: Path, repository: Path) -> None:
    commit = git("rev-parse", "HEAD~1", repository=repository)

    done = fetch(tmp_path, repository.as_uri(), commit)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "src/slurm/META").read_text() == "Version: 25.11.7\n"
    assert (tmp_path / "src/origin").read_text() == f"commit {commit} of {repository.as_uri()}\n"
    assert sorted(path.name for path in (tmp_path / "src").iterdir()) == ["origin", "slurm", "source.tar"]


def test_commit_that_the_repository_lacks_is_told(tmp_path: Path, repository: Path) -> None:
    done = fetch(tmp_path, repository.as_uri(), "c" * 40)

    assert done.returncode == 1
    assert (
        f"no source of Slurm 25.11.7 could be had. Tried:\nslurm-testbed:   {repository.as_uri()}: git" in done.stderr
    )


def test_repository_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = fetch(tmp_path, "https://git.invalid/slurm.git", "c" * 40)

    assert done.returncode == 1
    assert "https://git.invalid/slurm.git: git exited with 128" in done.stderr
