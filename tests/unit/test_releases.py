"""releases.yaml: read, checked, looked up, and what is generated from it."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from slurm_testbed import data, releases
from slurm_testbed.errors import SlurmTestbedError, UnknownReleaseError
from slurm_testbed.releases import Release, Releases, Source

SHA = "0" * 64


def release(version: str, support_end: date, *, sha256: str | None = SHA, follows: tuple[str, ...] = ()) -> Release:
    """A release with one source."""
    source = Source("schedmd", f"https://example.org/slurm-{version}.tar.bz2", sha256=sha256)
    return Release(version, support_end, ("v0.0.40",), follows, frozenset({"mysql"}), (source,))


OLD = release("22.05.8", date(2023, 11, 30))
PREVIOUS = release("24.11.4", date(2026, 5, 31), follows=("23.11", "24.05"))
RECENT = release("24.11.5", date(2026, 5, 31), follows=("23.11", "24.05"))
NEW = release("25.11.1", date(2027, 5, 31), follows=("24.11", "25.05"))
UNCHECKED = release("26.05.0", date(2027, 11, 30), sha256=None)


@pytest.fixture
def some() -> Releases:
    """Five releases, oldest first; the newest has no digest."""
    return Releases((OLD, PREVIOUS, RECENT, NEW, UNCHECKED))


# --- looking up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [("24.11", RECENT), ("24.11.4", PREVIOUS), ("22.05.8", OLD), (" v25.11 ", NEW)],
)
def test_find_takes_a_version_or_the_newest_of_a_minor_release(some: Releases, name: str, found: Release) -> None:
    assert some.find(name) == found


@pytest.mark.parametrize(
    ("name", "near"),
    [("24.11.9", "24.11.5"), ("22.5.8", "22.05.8"), ("25.11.1rc", "25.11.1")],
)
def test_unknown_release_names_the_known_and_the_nearest(some: Releases, name: str, near: str) -> None:
    with pytest.raises(UnknownReleaseError) as error:
        some.find(name)

    text = str(error.value)
    assert f"unknown release {name}: releases.yaml has 22.05.8, 24.11.4, 24.11.5" in text
    assert f"did you mean {near}?" in text
    assert "--source" in error.value.hint


def test_unknown_release_far_from_all_suggests_none(some: Releases) -> None:
    with pytest.raises(UnknownReleaseError) as error:
        some.find("latest")

    assert "did you mean" not in str(error.value)


def test_support_includes_its_last_day() -> None:
    assert [RECENT.supported_on(date(2026, 5, 31)), RECENT.supported_on(date(2026, 6, 1))] == [True, False]


def test_support_is_unknown_of_a_release_without_an_end() -> None:
    assert not Release("99.01.0").supported_on(date(2026, 1, 1))


@pytest.mark.parametrize(
    ("later", "earlier", "may"),
    [(NEW, RECENT, True), (NEW, OLD, False), (RECENT, PREVIOUS, True), (PREVIOUS, RECENT, False)],
)
def test_release_follows_those_that_it_names_and_older_ones_of_its_own(
    later: Release, earlier: Release, may: bool
) -> None:
    assert later.may_follow(earlier) is may


def test_24_11_does_not_follow_22_05() -> None:
    known = Releases.load()

    assert not known.find("24.11").may_follow(known.find("22.05"))


def test_abilities_are_asked_by_name() -> None:
    known = Releases.load()

    assert [known.find(name).has("auth_slurm") for name in ("22.05", "24.11")] == [False, True]


# --- the default -----------------------------------------------------------------------------------------


def test_default_is_the_newest_supported_with_a_source(some: Releases) -> None:
    chosen, why = some.default(date(2026, 11, 20))

    assert chosen == NEW, why
    assert why.startswith("Slurm 25.11.1 by default: the newest release that SchedMD supports")


def test_default_skips_a_supported_one_whose_source_cannot_be_had(some: Releases) -> None:
    chosen, why = some.default(date(2026, 5, 1), lambda source: "25.11" not in source.where)

    assert chosen == RECENT, why


def test_default_is_the_newest_with_a_source_where_none_is_supported(some: Releases) -> None:
    chosen, why = some.default(date(2030, 1, 1))

    assert chosen == NEW, why
    assert "SchedMD supports none of those" in why


def test_source_without_digest_is_never_used(some: Releases) -> None:
    chosen, _ = some.default(date(2026, 11, 20), lambda _: True)

    assert chosen != UNCHECKED


def test_default_rests_neither_on_a_gap_nor_on_packages(some: Releases) -> None:
    gap = Source("debian", "sid", "slurm-wlm", SHA, gap="it answers 404")
    packages = Source("packages", "sid", "slurmctld,slurmd")
    newest = Release("27.05.0", date(2028, 11, 30), sources=(gap, packages))

    chosen, _ = Releases((*some.all, newest)).default(date(2026, 11, 20))

    assert chosen == NEW


def test_no_source_at_all_is_an_error_with_a_way_out(some: Releases) -> None:
    with pytest.raises(SlurmTestbedError, match="no source can be had") as error:
        some.default(available=lambda _: False)

    assert "--source" in error.value.hint


def test_packages_say_what_they_lack() -> None:
    release = Releases.load().find("26.05")

    assert (release.has("pmix"), release.packaged().has("pmix")) == (True, False)
    assert release.packaged().has("sluid_cgroups")
    assert Releases.load().find("24.11").packaged() == Releases.load().find("24.11")


@pytest.mark.parametrize("release", Releases.load().all, ids=str)
def test_packages_come_last(release: Release) -> None:
    kinds = [source.kind for source in release.sources]

    assert "packages" not in kinds[:-1], "a source after the packages is never tried"


def test_every_release_can_be_built_and_two_of_them_from_a_commit_alone() -> None:
    known = Releases.load().all

    assert [r.minor for r in known if r.packages or any(s.usable for s in r.sources)] == [r.minor for r in known]
    assert [r.minor for r in known if [s.kind for s in r.sources if s.usable] == ["git"]] == ["25.05", "25.11"]


# --- reading ---------------------------------------------------------------------------------------------


@pytest.fixture
def entry() -> dict[str, Any]:
    """A right entry of releases.yaml."""
    return {
        "version": "24.11.5",
        "support_end": date(2026, 5, 31),
        "rest": ["v0.0.42"],
        "follows": ["24.05"],
        "abilities": ["mysql"],
        "sources": [{"kind": "debian", "suite": "trixie", "package": "slurm-wlm", "sha256": SHA}],
    }


def load(folder: Path, *entries: object) -> Releases:
    """What is read of a file with these entries."""
    path = folder / "releases.yaml"
    path.write_text(yaml.safe_dump({"releases": list(entries)}))
    return Releases.load(path)


def test_right_entry_is_read(tmp_path: Path, entry: dict[str, Any]) -> None:
    found = load(tmp_path, entry).find("24.11")

    assert found.sources == (Source("debian", "trixie", "slurm-wlm", SHA),)
    assert (found.support_end, found.rest, found.patches) == (date(2026, 5, 31), ("v0.0.42",), None)


def test_commit_is_read_and_reaches_the_build(tmp_path: Path, entry: dict[str, Any]) -> None:
    commit = "c" * 40
    git = {"kind": "git", "url": "https://example.org/slurm.git", "commit": commit}

    found = load(tmp_path, entry | {"sources": [git]})

    (source,) = found.find("24.11").sources
    assert (source.where, source.commit, source.usable) == ("https://example.org/slurm.git", commit, True)
    assert releases.source_table(found) == f"24.11.5\tgit\thttps://example.org/slurm.git\t-\t{commit}\n"


PACKAGES = {"kind": "packages", "suite": "sid", "packages": ["slurmd"], "lacks": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 24.11}, r"release 24\.11: version: is 24\.11, not three numbers in quotes"),
        ({"version": "24.11"}, r"release 24\.11: version: is '24\.11', not three numbers"),
        ({"support_end": "soon"}, r"release 24\.11\.5: support_end: is 'soon', not a date"),
        ({"rest": ["42"]}, r"rest\[0\]: is '42', not an API version as v0\.0\.42"),
        ({"rest": "v0.0.42"}, r"rest: is 'v0\.0\.42', not a list"),
        ({"follows": [24.05]}, r"follows\[0\]: is 24\.05, not a minor release in quotes"),
        ({"sources": [{"kind": "ftp"}]}, r"sources\[0\]\.kind: is 'ftp', not one of schedmd, debian, git, packages"),
        (
            {"sources": [{"kind": "packages", "suite": "sid", "packages": ["a b"], "lacks": []}]},
            r"sources\[0\]\.packages\[0\]: is 'a b', not the name of a package",
        ),
        (
            {"sources": [{"kind": "packages", "suite": "sid", "packages": ["slurmd"], "lacks": [], "gap": "x"}]},
            r"sources\[0\]: unknown key gap",
        ),
        (
            {"sources": [PACKAGES | {"no_images": 3}]},
            r"sources\[0\]\.no_images: is 3, not a mapping",
        ),
        (
            {"sources": [PACKAGES | {"no_images": {"slurm-jupyter": None}}]},
            r"sources\[0\]\.no_images\.slurm-jupyter: is None, not a reason",
        ),
        (
            {"sources": [{"kind": "schedmd", "url": "https://x", "sha256": None, "gap": 404}]},
            r"sources\[0\]\.gap: is 404, not a reason",
        ),
        ({"sources": [{"kind": "schedmd", "sha256": None}]}, r"sources\[0\]: url is missing"),
        (
            {"sources": [{"kind": "schedmd", "url": "http://x", "sha256": None}]},
            r"sources\[0\]\.url: is 'http://x', not an https URL",
        ),
        (
            {"sources": [{"kind": "debian", "suite": "sid", "package": "p", "sha256": "ab"}]},
            r"sources\[0\]\.sha256: is 'ab', not a SHA-256 of 64",
        ),
        (
            {"sources": [{"kind": "git", "url": "https://x", "commit": "slurm-24-11-5-1"}]},
            r"sources\[0\]\.commit: is 'slurm-24-11-5-1', not the id of a commit",
        ),
        ({"sources": [{"kind": "git", "url": "https://x"}]}, r"sources\[0\]: commit is missing"),
        ({"patches": {"suite": "sid"}}, r"patches: match, package, sha256 is missing"),
        ({"suport_end": 1}, r"release 24\.11\.5: unknown key suport_end"),
    ],
)
def test_wrong_key_is_named_with_its_release(
    tmp_path: Path, entry: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SlurmTestbedError, match=message) as error:
        load(tmp_path, entry | change)

    assert "releases.yaml" in str(error.value)


def test_missing_key_is_named_with_its_release(tmp_path: Path, entry: dict[str, Any]) -> None:
    del entry["sources"]

    with pytest.raises(SlurmTestbedError, match=r"release 24\.11\.5: sources is missing"):
        load(tmp_path, entry)


def test_entry_that_is_no_mapping_is_named_by_its_number(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(SlurmTestbedError, match=r"release number 2: is '24\.11\.6', not a mapping"):
        load(tmp_path, entry, "24.11.6")


def test_release_described_twice_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(SlurmTestbedError, match=r"release 24\.11\.5 is described twice"):
        load(tmp_path, entry, entry)


@pytest.mark.parametrize(
    ("text", "message"),
    [("releases: []", "is empty"), ("a: [", "is not YAML"), ("x: 1", "releases is missing")],
)
def test_wrong_file_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "releases.yaml").write_text(text)

    with pytest.raises(SlurmTestbedError, match=message):
        Releases.load(tmp_path / "releases.yaml")


def test_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SlurmTestbedError, match=r"releases\.yaml cannot be read: No such file"):
        Releases.load(tmp_path / "releases.yaml")


# --- the generated files ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of images/ that may be written to."""
    return Path(shutil.copytree(data.images(), tmp_path / "images"))


def test_generated_files_are_what_is_committed(folder: Path) -> None:
    changed = releases.generate(folder)

    assert changed == [], "run: python -m slurm_testbed.releases"


def test_changed_digest_reaches_the_build(folder: Path) -> None:
    path = folder / "releases.yaml"
    path.write_text(path.read_text().replace("e1a5547edd21", "ffffffffffff"))

    changed = releases.generate(folder)

    assert changed == [folder / "slurm/sources.tsv"]
    assert "\tslurm-wlm\tffffffffffff" in changed[0].read_text()


def test_generated_default_does_not_change_with_the_day(some: Releases) -> None:
    variables = json.loads(releases.bake_variables(some))["variable"]

    assert variables["VERSION"]["default"] == "25.11.1"
    assert variables["SUPPORT_END"]["default"]["22.05"] == "2023-11-30"


def test_dockerfile_has_the_same_default() -> None:
    default = json.loads((data.images() / "docker-bake.json").read_text())["variable"]["VERSION"]["default"]

    assert f"ARG VERSION={default}\n" in (data.images() / "slurm/Dockerfile").read_text()
