"""A source of one's own, laid out for the build."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from slurm_testbed.children import output_of
from slurm_testbed.errors import UsageError

_TARBALL = re.compile(r".+\.tar\.(gz|bz2|xz)")
_HOW_TO_GIVE = "give a tarball of Slurm (.tar.gz, .tar.bz2 or .tar.xz), or a checkout"


@dataclass(frozen=True)
class GivenSource:
    """A source of one's own, laid out as the build wants it.

    Attributes:
        folder: the source tree, or a folder with a tarball of it.
        version: its version, from META.
        name: what it is called in labels and messages.
    """

    folder: Path
    version: str
    name: str


@contextlib.contextmanager
def given_source(path: Path) -> Iterator[GivenSource]:
    """Lay out a tarball or a checkout of Slurm for the build.

    Args:
        path: the tarball or the checkout.

    Raises:
        UsageError: it is neither.

    Example:
        >>> with given_source(Path("slurm-24.11.5.tar.bz2")) as given:  # doctest: +SKIP
        ...     given.version
        '24.11.5'
    """
    if not path.exists():
        raise UsageError(f"the source {path} does not exist", hint=_HOW_TO_GIVE)
    path = path.resolve()
    with tempfile.TemporaryDirectory(prefix="slurm-testbed-source-") as temporary:
        folder = Path(temporary)
        if path.is_dir():
            meta = path / "META"
            version = _version_in(meta.read_text(errors="replace") if meta.is_file() else "", path)
            if (path / ".git").exists():
                _pack(path, folder / f"{path.name}.tar.checkout")
            else:
                folder = path
        else:
            version = _version_in(_meta_of_tarball(path), path)
            try:
                os.link(path, folder / path.name)
            except OSError:  # another file system
                shutil.copy(path, folder / path.name)
        yield GivenSource(folder, version, path.name)


def _version_in(meta: str, path: Path) -> str:
    match = re.search(r"^\s*Version:\s*(\d+\.\d+\.\w+)\s*$", meta, re.MULTILINE)
    if not match:
        raise UsageError(
            f"{path} is no source of Slurm: {'its META has no version' if meta else 'it has no META file'}",
            hint=_HOW_TO_GIVE,
        )
    return match[1]


def _meta_of_tarball(path: Path) -> str:
    if not _TARBALL.fullmatch(path.name):
        raise UsageError(f"{path} is neither a tarball nor a folder", hint=_HOW_TO_GIVE)
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if re.fullmatch(r"(\./)?[^/]+/META", member.name):
                    return cast(IO[bytes], archive.extractfile(member)).read().decode(errors="replace")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be unpacked: {error}", hint=_HOW_TO_GIVE) from None
    return ""


def _pack(checkout: Path, tarball: Path) -> None:
    """Pack the files of a git checkout, also changed and new ones, but no objects and no history.

    A folder as it is would be another source after every `git status`, and compiled again.
    """
    argv = ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    code, listed = output_of(argv)
    if code:
        raise UsageError(f"git does not list the files of {checkout}: {listed.strip()}")

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(tarball, "w") as archive:
        for name in sorted(set(filter(None, listed.split("\0")))):
            if os.path.lexists(checkout / name):  # else it was deleted
                archive.add(checkout / name, f"slurm/{name}", filter=anonymous)
