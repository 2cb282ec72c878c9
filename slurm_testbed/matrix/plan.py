"""Which cells there are, and how many of them run at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from slurm_testbed.errors import UsageError
from slurm_testbed.pytest_plugin import SUBSTRATES
from slurm_testbed.releases import Release, Releases

T = TypeVar("T")

#: The suites that are meant when none is named, as far as they are there.
DEFAULT_SUITES = ("slurm", "rest", "auth", "accounting")
#: What stands for every suite.
ALL = "all"
#: Folders whose tests are the same for every release, the matrix's own among them: `invoke test` runs them once.
WITHOUT_RELEASE = frozenset({"charts", "library", "matrix", "unit"})
#: A cell mostly waits: for Slurm's whole seconds, and for its database.
CELLS_PER_CPU = 2
#: Bytes of memory that a cell may take: pytest, and up to three clusters that its tests hold at once.
CELL_MEMORY = 1 << 30


@dataclass(frozen=True)
class Cell:
    """One suite on one release on one substrate.

    Example:
        >>> str(Cell(Releases.load().find("24.11"), "rest", "single"))
        '24.11.5-rest-single'
    """

    release: Release
    suite: str
    substrate: str

    def __str__(self) -> str:
        return f"{self.release}-{self.suite}-{self.substrate}"


@dataclass(frozen=True)
class Plan:
    """What a run is asked to do.

    Attributes:
        releases: the releases, oldest first.
        suites: folders of tests/.
        substrates: what carries the clusters.
    """

    releases: tuple[Release, ...]
    suites: tuple[str, ...]
    substrates: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """Every combination, release by release."""
        return [
            Cell(release, suite, substrate)
            for release in self.releases
            for substrate in self.substrates
            for suite in self.suites
        ]


def suites_of(root: Path) -> list[str]:
    """The suites that a repository has: the folders of tests/ with tests in them, but those that know no release.

    Args:
        root: the repository.

    Example:
        >>> "rest" in suites_of(Path())  # doctest: +SKIP
        True
    """
    folders = {path.parent.name for path in root.glob("tests/*/test_*.py")}
    return sorted(folders - WITHOUT_RELEASE)


def plan(root: Path, *, releases: str = "", suites: str = "", substrates: str = "") -> Plan:
    """Read what is asked for; every list is separated by commas.

    Args:
        root: the repository whose tests/ has the suites.
        releases: versions or minor releases; empty for all of releases.yaml.
        suites: folders of tests/, `all` among them for each; empty for those of DEFAULT_SUITES that are there.
        substrates: empty for all that the pytest plugin knows; `kubernetes` where KUBECONFIG says where one is.

    Raises:
        UsageError: there is no such release, suite or substrate; the message names those that there are.

    Example:
        >>> [str(cell) for cell in plan(Path(), releases="24.11", suites="rest", substrates="single").cells]
        ... # doctest: +SKIP
        ['24.11.5-rest-single']
    """
    known = Releases.load()
    here = suites_of(root)
    if not here:
        raise UsageError(f"{root} has no suites: no folder of tests/ has a file test_*.py")
    default = [name for name in DEFAULT_SUITES if name in here] or here
    named = _chosen(suites, _one_of(here, "suite", or_else=ALL))
    return Plan(
        tuple(_chosen(releases, known.find) or known.all),
        tuple(here if ALL in named else named or default),
        tuple(_chosen(substrates, _one_of(tuple(SUBSTRATES), "substrate")) or _substrates_here()),
    )


def _substrates_here() -> list[str]:
    return [name for name in SUBSTRATES if name != "kubernetes" or os.environ.get("KUBECONFIG")]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _chosen(text: str, find: Callable[[str], T]) -> list[T]:
    """What the names of a list stand for, each once."""
    return list(dict.fromkeys(find(name) for name in _names(text)))


def _one_of(known: Sequence[str], what: str, or_else: str = "") -> Callable[[str], str]:
    def find(name: str) -> str:
        if name not in {*known, or_else}:
            more = f", or {or_else}" if or_else else ""
            raise UsageError(f"no {what} {name}: there are {', '.join(known)}{more}")
        return name

    return find


def at_once(cells: int, *, cpus: int, memory: int, asked: int = 0) -> tuple[int, str]:
    """How many cells run at once, and a sentence that says why.

    Args:
        cells: how many there are.
        cpus: processors of the engine's machine.
        memory: its memory in bytes.
        asked: a number that somebody asked for; 0 to choose one.

    Raises:
        UsageError: the number asked for is less than 1.

    Example:
        >>> at_once(8, cpus=2, memory=24 << 30)
        (4, '4 cells at once: 2 on each of 2 processors, for a cell mostly waits')
        >>> at_once(8, cpus=16, memory=3 << 30)
        (3, '3 cells at once: 1 GiB of memory for each')
    """
    if asked < 0:
        raise UsageError(f"--jobs is 1 or more, not {asked}")
    if asked:
        return min(asked, cells), f"{_cells(min(asked, cells))} at once, as asked"
    by_cpus, by_memory = max(1, cpus * CELLS_PER_CPU), max(1, memory // CELL_MEMORY)
    number = min(cells, by_cpus, by_memory)
    why = {
        cells: "there are no more" if cells > 1 else "there is no other",
        by_memory: f"{CELL_MEMORY >> 30} GiB of memory for each",
        by_cpus: f"{CELLS_PER_CPU} on each of {cpus} processors, for a cell mostly waits",
    }
    return number, f"{_cells(number)} at once: {why[number]}"


def _cells(number: int) -> str:
    return f"{number} cell{'s' if number != 1 else ''}"


def longest_first(cells: Sequence[Cell], seconds: dict[str, float]) -> list[Cell]:
    """The cells in the order in which they are started, so that no long one is left alone at the end.

    Args:
        cells: all of them.
        seconds: how long each took the last time, by name; one that is not known may take any time, and is first.

    Example:
        >>> release = Releases.load().find("24.11")
        >>> cells = [Cell(release, suite, "single") for suite in ("auth", "rest", "slurm")]
        >>> [cell.suite for cell in longest_first(cells, {"24.11.5-auth-single": 3, "24.11.5-slurm-single": 90})]
        ['rest', 'slurm', 'auth']
    """
    return sorted(cells, key=lambda cell: -seconds.get(str(cell), float("inf")))
