"""Folders of this machine that a cluster's hosts see under the same path."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

#: Folders that the images have too, over which nothing may be laid.
_OF_THE_SYSTEM = frozenset(map(Path, ("/", "/usr")))


def shared_paths(share: Iterable[str | Path]) -> list[str]:
    """Under which paths a host sees what is shared: as it was named, and what that resolves to.

    Args:
        share: folders or files.

    Example:
        >>> shared_paths(["/usr/../usr"])
        ['/usr']
    """
    paths = (path for named in share for path in (Path(named).resolve(), Path(os.path.abspath(named))))  # noqa: PTH100
    return list(dict.fromkeys(map(str, paths)))


def this_python() -> list[Path]:
    """What a cluster has to share for its jobs to run the Python that runs now, with its packages.

    It runs where the image has the C library of this machine, or a newer one: docs/clients.md.

    Example:
        >>> with SlurmContainer("24.11", share=[workdir, *this_python()]) as slurm:  # doctest: +SKIP
        ...     slurm.srun(sys.executable, "-c", "import sys; print(sys.prefix)")
    """
    stdlib = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    packages = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    folders = python_folders(Path(sys.prefix), Path(sys.base_prefix), map(Path, [*stdlib, *packages]))
    return [*folders, *_links(Path(sys.executable), folders)]


def python_folders(prefix: Path, base: Path, more: Iterable[Path]) -> list[Path]:
    """The folders of a Python: its environment and its installation, or what of that is not the system's.

    Args:
        prefix: of the environment.
        base: of the installation that the environment was made with.
        more: its folders of modules.

    Example:
        >>> python_folders(Path("/venv"), Path("/usr"), [Path("/usr/lib"), Path("/venv/lib")])
        [PosixPath('/venv'), PosixPath('/usr/lib')]
    """
    folders = [folder for folder in (prefix, base) if folder not in _OF_THE_SYSTEM]
    for folder in more:
        if folder.is_dir() and not _within(folder, folders):
            folders.append(folder)
    return list(dict.fromkeys(folders))


def _links(program: Path, folders: Sequence[Path]) -> list[Path]:
    """The program, and what it links to, outside the folders: an environment's links to its installation's."""
    found = []
    while True:
        if not _within(program, folders):
            found.append(program)
        if not program.is_symlink():
            return found
        program = Path(os.path.normpath(program.parent / program.readlink()))


def _within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
