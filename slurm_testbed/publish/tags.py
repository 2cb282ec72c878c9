"""Under which tags an image is published: one that never moves, and those that follow the newest build."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from slurm_testbed.errors import UsageError
from slurm_testbed.images import END_OF_LIFE, SUITE
from slurm_testbed.releases import Release, Releases

LATEST = "latest"
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Tags:
    """The tags of one image.

    Attributes:
        immutable: of this very build; a registry that has it never gets another image under it.
        moving: those that move to each newer build, the most precise one first.
    """

    immutable: str
    moving: tuple[str, ...]


def tags_of(release: Release | None, testbed: str, *, releases: Releases, today: date, rebuilt: str = "") -> Tags:
    """The tags of an image.

    `latest` is the newest release that SchedMD supports, whether it is published or not: it never goes back.

    Args:
        release: the Slurm in it; None for an image without one, whose tag is its Debian.
        testbed: the version of Slurm Testbed.
        releases: all that there are.
        today: the day for which support is asked.
        rebuilt: what tells a build of the same two versions with newer packages from others, as its day.

    Raises:
        UsageError: the tag would be none.

    Example:
        >>> known = Releases.load()
        >>> tags_of(known.find("26.05"), "0.1.0", releases=known, today=date(2026, 11, 1))
        Tags(immutable='26.05.5-0.1.0', moving=('26.05.5', '26.05', 'latest'))
        >>> tags_of(known.find("22.05"), "0.1.0", releases=known, today=date(2026, 11, 1), rebuilt="20261102")
        Tags(immutable='22.05.8-0.1.0-20261102', moving=('22.05.8-eol', '22.05-eol'))
    """
    what = release.version if release else SUITE
    # A version such as 0.1.0+local is a good one of Python, and no tag.
    immutable = f"{what}-{testbed.replace('+', '-')}" + (f"-{rebuilt}" if rebuilt else "")
    if not _TAG.fullmatch(immutable):
        raise UsageError(f"{immutable} is no tag: letters, digits, dots, hyphens and underscores, 128 at most")
    if not release:
        return Tags(immutable, (SUITE, LATEST))
    if not release.supported_on(today):
        return Tags(immutable, (release.version + END_OF_LIFE, release.minor + END_OF_LIFE))
    newest = max((r for r in releases.all if r.supported_on(today)), key=lambda r: r.number)
    latest = (LATEST,) if release.minor == newest.minor else ()
    return Tags(immutable, (release.version, release.minor, *latest))
