"""Which tags an image gets: never `latest` for what is unsupported, never one that another release has."""

from __future__ import annotations

from datetime import date

import pytest

from slurm_testbed.errors import UsageError
from slurm_testbed.publish.tags import tags_of
from slurm_testbed.releases import Release, Releases

KNOWN = Releases.load()
DAY = date(2026, 11, 22)


@pytest.mark.parametrize("release", KNOWN.all, ids=str)
@pytest.mark.parametrize("day", [date(2020, 1, 1), DAY, date(2027, 6, 1), date(2040, 1, 1)], ids=str)
def test_version_minor_and_latest_are_of_supported_releases_alone(release: Release, day: date) -> None:
    tags = tags_of(release, "0.1.0", releases=KNOWN, today=day)

    plain = {release.version, release.minor, "latest"}.intersection(tags.moving)
    assert bool(plain) == release.supported_on(day), tags
    assert tags.immutable == f"{release.version}-0.1.0"
    assert tags.immutable not in tags.moving


@pytest.mark.parametrize("day", [DAY, date(2027, 6, 1)], ids=str)
def test_latest_is_the_newest_supported_release_alone(day: date) -> None:
    latest = [r for r in KNOWN.all if "latest" in tags_of(r, "0.1.0", releases=KNOWN, today=day).moving]

    assert latest == [max((r for r in KNOWN.all if r.supported_on(day)), key=lambda r: r.number)]


def test_no_two_releases_share_a_tag() -> None:
    every = [tags_of(release, "0.1.0", releases=KNOWN, today=DAY) for release in KNOWN.all]
    names = [tag for tags in every for tag in (tags.immutable, *tags.moving)]

    assert len(names) == len(set(names)), names


def test_rebuilt_image_has_a_tag_of_its_own_and_moves_the_same_ones() -> None:
    release = KNOWN.find("26.05")
    first = tags_of(release, "0.1.0", releases=KNOWN, today=DAY)

    second = tags_of(release, "0.1.0", releases=KNOWN, today=DAY, rebuilt="20261122")

    assert second.immutable == f"{first.immutable}-20261122"
    assert second.moving == first.moving


def test_tag_of_a_local_version_is_one_that_docker_takes() -> None:
    assert tags_of(None, "0.1.0+local", releases=KNOWN, today=DAY).immutable == "trixie-0.1.0-local"


@pytest.mark.parametrize("rebuilt", ["a/b", "a b", "x" * 128])
def test_what_is_no_tag_is_refused(rebuilt: str) -> None:
    with pytest.raises(UsageError, match="is no tag"):
        tags_of(KNOWN.find("26.05"), "0.1.0", releases=KNOWN, today=DAY, rebuilt=rebuilt)
