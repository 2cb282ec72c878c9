"""The Slurm releases that we build: where each comes from, what it has, and how long SchedMD supports it."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NoReturn

import yaml

from slurm_testbed import data
from slurm_testbed.errors import SlurmTestbedError, UnknownReleaseError

FILE = "releases.yaml"
BAKE_FILE = "docker-bake.json"
SOURCES_FILE = "slurm/sources.tsv"

_VERSION = re.compile(r"\d{2}\.\d{2}\.\d+")
_MINOR = re.compile(r"\d{2}\.\d{2}")
_API_VERSION = re.compile(r"v0\.0\.\d+")
_ABILITY = re.compile(r"[a-z]\w*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """One place where a release may be had.

    Attributes:
        kind: `schedmd`, a tarball at a URL; `debian`, the tarball of a Debian source package; `git`, a commit of a
            repository; or `packages`, Debian's binary packages, which are no source but run.
        where: the URL, or the suite.
        package: the Debian source package, or the binary packages separated by commas; empty for a tarball.
        sha256: the digest of the tarball; None where nobody has checked one, and then it is never used.
        commit: of git: the id, which git checks; empty for the others.
        gap: why it could not be had when somebody last looked; empty where it could.
        lacks: of packages: what they were built without.
        no_images: of packages: the images that their suite cannot carry, each with the reason.
    """

    kind: str
    where: str
    package: str = ""
    sha256: str | None = None
    commit: str = ""
    gap: str = ""
    lacks: frozenset[str] = frozenset()
    no_images: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def usable(self) -> bool:
        """Whether it is source code whose digest is known, without which it is only named."""
        return bool(self.sha256 or self.commit)

    @property
    def known_to_answer(self) -> bool:
        """Whether it is usable, and was had by whoever looked last."""
        return self.usable and not self.gap

    def __str__(self) -> str:
        if self.kind == "packages":
            return f"Debian's packages in {self.where}"
        if self.kind == "git":
            return f"commit {self.commit} of {self.where}"
        return f"Debian's source package {self.package} in {self.where}" if self.package else self.where


@dataclass(frozen=True)
class Patches:
    """Patches of a Debian source package that are applied to the source of a release.

    Attributes:
        suite: the Debian suite.
        package: the source package.
        match: those patches of its series whose name fits this shell pattern.
        sha256: the digest of the packaging's tarball.
    """

    suite: str
    package: str
    match: str
    sha256: str


@dataclass(frozen=True)
class Release:
    """One release of Slurm.

    Attributes:
        version: the full version, `24.11.5`.
        support_end: the last day of SchedMD's support; None where it is not known.
        rest: the API versions that its slurmrestd serves, oldest first.
        follows: the minor releases whose state and database it accepts.
        abilities: what it was built with, as in release.env of the image.
        sources: where its source may be had, in the order in which they are tried.
        patches: patches that are applied to the source, whichever it is.

    Example:
        >>> release = Releases.load().find("24.11")
        >>> release.version, release.has("cgroup_v2"), release.rest[-1]
        ('24.11.5', True, 'v0.0.42')
    """

    version: str
    support_end: date | None = None
    rest: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    abilities: frozenset[str] = frozenset()
    sources: tuple[Source, ...] = ()
    patches: Patches | None = None

    def __str__(self) -> str:
        return self.version

    @property
    def minor(self) -> str:
        """The minor release, `24.11`."""
        return minor_of(self.version)

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers, to compare."""
        return tuple(int(part) for part in self.version.split("."))

    def has(self, ability: str) -> bool:
        """Whether the release was built with an ability.

        Args:
            ability: e.g. `cgroup_v2`, `auth_slurm`.
        """
        return ability in self.abilities

    @property
    def packages(self) -> Source | None:
        """The distribution's packages of the release, which are taken where no source can be had."""
        return next((source for source in self.sources if source.kind == "packages"), None)

    def packaged(self) -> Release:
        """The release as its packages have it.

        Example:
            >>> Releases.load().find("26.05").packaged().has("pmix")
            False
        """
        lacks = self.packages.lacks if self.packages else frozenset()
        return replace(self, abilities=self.abilities - lacks)

    def supported_on(self, day: date) -> bool:
        """Whether SchedMD supports the release on a day.

        Args:
            day: the day that is asked for.
        """
        return self.support_end is not None and day <= self.support_end

    def may_follow(self, other: Release) -> bool:
        """Whether the release accepts the state, the database and the peers of another one.

        Args:
            other: the release from which one would upgrade.
        """
        if other.minor == self.minor:
            return other.number <= self.number
        return other.minor in self.follows


def minor_of(version: str) -> str:
    """The minor release of a version.

    Args:
        version: a full version.

    Example:
        >>> minor_of("24.11.5")
        '24.11'
    """
    return ".".join(version.split(".")[:2])


def _known_to_answer(source: Source) -> bool:
    return source.known_to_answer


@dataclass(frozen=True)
class Releases:
    """All releases that releases.yaml describes, oldest first.

    Example:
        >>> str(Releases.load().find("22.05"))
        '22.05.8'
    """

    all: tuple[Release, ...]

    @classmethod
    def load(cls, path: Path | None = None) -> Releases:
        """Read and check releases.yaml.

        Args:
            path: another file.

        Raises:
            SlurmTestbedError: the file is missing or wrong; the message names the release and the key.

        Example:
            >>> len(Releases.load().all) >= 2
            True
        """
        path = path or data.images() / FILE
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SlurmTestbedError(f"{path} cannot be read: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise SlurmTestbedError(f"{path} is not YAML: {error}") from None
        return cls(tuple(sorted(_Reader(path).releases(content), key=lambda release: release.number)))

    def find(self, name: str | None = None) -> Release:
        """The release of a name.

        Args:
            name: a version, or a minor release, of which the newest is meant; None is the default release.

        Raises:
            UnknownReleaseError: there is none; the message names those that there are.

        Example:
            >>> Releases.load().find("24.11").version
            '24.11.5'
        """
        if name is None:
            return self.default()[0]
        wanted = name.strip().removeprefix("v")
        for release in reversed(self.all):
            if wanted in {release.version, release.minor}:
                return release
        raise UnknownReleaseError(f"unknown release {name}: {self._what_there_is(wanted)}", hint=_HOW_TO_ADD)

    def _what_there_is(self, wanted: str) -> str:
        known = [release.version for release in self.all]
        text = f"{FILE} has {', '.join(known)}"
        same_minor = [release.version for release in self.all if release.minor == minor_of(wanted)]
        near = same_minor or difflib.get_close_matches(wanted, known, n=1, cutoff=0.7)
        return f"{text}; did you mean {near[-1]}?" if near else text

    def default(
        self, today: date | None = None, available: Callable[[Source], bool] = _known_to_answer
    ) -> tuple[Release, str]:
        """The release that is meant when none is named, and a sentence that says why.

        It is the newest one that SchedMD supports and whose source can be had, else the newest one whose
        source can be had.

        Args:
            today: the day for which support is asked.
            available: whether a source with a digest can be had; by default, whether releases.yaml names no gap.

        Raises:
            SlurmTestbedError: no release's source can be had.

        Example:
            >>> Releases.load().default(date(2026, 1, 1))[1]
            'Slurm 24.11.5 by default: the newest release that SchedMD supports and whose source can be had'
        """
        today = today or datetime.now(UTC).date()
        had = [r for r in reversed(self.all) if any(s.usable and available(s) for s in r.sources)]
        if not had:
            raise SlurmTestbedError(
                f"no source can be had of any release in {FILE}", hint="give one: invoke build --source PATH"
            )
        supported = [release for release in had if release.supported_on(today)]
        if supported:
            why = "the newest release that SchedMD supports and whose source can be had"
            return supported[0], f"Slurm {supported[0]} by default: {why}"
        why = "the newest release whose source can be had; SchedMD supports none of those"
        return had[0], f"Slurm {had[0]} by default: {why}"


_HOW_TO_ADD = f"describe it in images/{FILE}, or give its source: invoke build --source PATH"


class _Reader:
    """Reads releases from what YAML made of the file; every complaint names the release and the key."""

    def __init__(self, path: Path) -> None:
        self._where = str(path)

    def releases(self, content: object) -> list[Release]:
        """All releases of the file."""
        top = self._mapping(content, {"releases"}, set())
        entries = self._list(top["releases"], "releases")
        if not entries:
            self._fail("releases: is empty")
        releases = [self._release(entry, number) for number, entry in enumerate(entries, start=1)]
        versions = [release.version for release in releases]
        if twice := {version for version in versions if versions.count(version) > 1}:
            self._fail(f"release {', '.join(sorted(twice))} is described twice")
        return releases

    def _release(self, entry: object, number: int) -> Release:
        file = self._where
        version = entry.get("version") if isinstance(entry, Mapping) else None
        self._where = f"{file}: release {version or f'number {number}'}"
        keys = {"version", "support_end", "rest", "follows", "abilities", "sources"}
        entry = self._mapping(entry, keys, {"patches"})
        # An unquoted 24.11 is a number in YAML, and 24.10 would be 24.1.
        version = self._text(entry["version"], "version", _VERSION, 'three numbers in quotes, as "24.11.5"')
        if type(entry["support_end"]) is not date:
            self._fail(f"support_end: is {entry['support_end']!r}, not a date as 2026-05-31")
        release = Release(
            version=version,
            support_end=entry["support_end"],
            rest=self._texts(entry, "rest", _API_VERSION, "an API version as v0.0.42"),
            follows=self._texts(entry, "follows", _MINOR, 'a minor release in quotes, as "24.05"'),
            abilities=frozenset(self._texts(entry, "abilities", _ABILITY, "a name")),
            sources=tuple(
                self._source(source, f"sources[{index}]")
                for index, source in enumerate(self._list(entry["sources"], "sources"))
            ),
            patches=self._patches(entry["patches"]) if "patches" in entry else None,
        )
        self._where = file
        return release

    def _source(self, source: object, key: str) -> Source:
        kind = source.get("kind") if isinstance(source, Mapping) else None
        keys = {"schedmd": {"url", "sha256"}, "debian": {"suite", "package", "sha256"}, "git": {"url", "commit"}}
        keys["packages"] = {"suite", "packages", "lacks"}
        if kind not in keys:
            self._fail(f"{key}.kind: is {kind!r}, not one of {', '.join(keys)}")
        optional = {"no_images"} if kind == "packages" else {"gap"}
        source = self._mapping(source, {"kind", *keys[kind]}, optional, key)
        if kind == "packages":
            return self._packages(source, key)
        gap = self._text(source["gap"], f"{key}.gap", re.compile(r".+"), "a reason") if "gap" in source else ""
        sha256 = self._digest(source["sha256"], f"{key}.sha256") if source.get("sha256") is not None else None
        if kind == "debian":
            suite, package = (self._word(source[name], f"{key}.{name}") for name in ("suite", "package"))
            return Source(kind, suite, package, sha256, gap=gap)
        url = self._text(source["url"], f"{key}.url", re.compile(r"https://\S+"), "an https URL")
        if kind == "schedmd":
            return Source(kind, url, sha256=sha256, gap=gap)
        commit = self._text(source["commit"], f"{key}.commit", _COMMIT, "the id of a commit, of 40 hexadecimal digits")
        return Source(kind, url, commit=commit, gap=gap)

    def _packages(self, source: Mapping[str, Any], key: str) -> Source:
        suite = self._word(source["suite"], f"{key}.suite")
        names = self._texts(source, "packages", re.compile(r"[a-z0-9][a-z0-9+.-]+"), "the name of a package", f"{key}.")
        lacks = self._texts(source, "lacks", _ABILITY, "a name", f"{key}.")
        refused = source.get("no_images", {})
        no_images = self._mapping(
            refused, set(), set(refused) if isinstance(refused, dict) else set(), f"{key}.no_images"
        )
        for name, reason in no_images.items():
            self._text(reason, f"{key}.no_images.{name}", re.compile(r".+"), "a reason")
        return Source("packages", suite, ",".join(names), lacks=frozenset(lacks), no_images=no_images)

    def _patches(self, patches: object) -> Patches:
        patches = self._mapping(patches, {"suite", "package", "match", "sha256"}, set(), "patches")
        suite, package, match = (self._word(patches[name], f"patches.{name}") for name in ("suite", "package", "match"))
        return Patches(suite, package, match, self._digest(patches["sha256"], "patches.sha256"))

    def _digest(self, value: object, key: str) -> str:
        return self._text(value, key, _SHA256, "a SHA-256 of 64 hexadecimal digits")

    def _word(self, value: object, key: str) -> str:
        # A blank would break the columns of sources.tsv.
        return self._text(value, key, re.compile(r"\S+"), "a word")

    def _text(self, value: object, key: str, pattern: re.Pattern[str], what: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._fail(f"{key}: is {value!r}, not {what}")
        return value

    def _texts(
        self, entry: Mapping[str, Any], key: str, pattern: re.Pattern[str], what: str, prefix: str = ""
    ) -> tuple[str, ...]:
        return tuple(
            self._text(value, f"{prefix}{key}[{index}]", pattern, what)
            for index, value in enumerate(self._list(entry[key], prefix + key))
        )

    def _list(self, value: object, key: str) -> Sequence[object]:
        if not isinstance(value, list):
            self._fail(f"{key}: is {value!r}, not a list")
        return value

    def _mapping(self, value: object, required: set[str], optional: set[str], key: str = "") -> dict[str, Any]:
        prefix = f"{key}: " if key else ""
        if not isinstance(value, dict):
            self._fail(f"{prefix}is {value!r}, not a mapping")
        if missing := sorted(required - value.keys()):
            self._fail(f"{prefix}{', '.join(missing)} is missing")
        if unknown := sorted(str(name) for name in value.keys() - required - optional):
            self._fail(f"{prefix}unknown key {', '.join(unknown)}")
        return value

    def _fail(self, text: str) -> NoReturn:
        raise SlurmTestbedError(f"{self._where}: {text}")


# --- the generated files ---------------------------------------------------------------------------------


def bake_variables(releases: Releases) -> str:
    """The text of docker-bake.json: what the bake file has to know of the releases.

    Args:
        releases: all of them.

    Example:
        >>> json.loads(bake_variables(Releases.load()))["variable"]["SUPPORT_END"]["default"]["24.11"]
        '2026-05-31'
    """
    # The file must not change as time goes by: on the first day of all, every release is supported.
    default, _ = releases.default(date.min)
    content = {
        "//": f"Generated from {FILE} by: python -m slurm_testbed.releases",
        "variable": {
            "VERSION": {"default": default.version},
            "SUPPORT_END": {"default": {r.minor: str(r.support_end) for r in releases.all}},
            "PACKAGES_IN": {"default": {r.minor: r.packages.where for r in releases.all if r.packages}},
        },
    }
    return json.dumps(content, indent=2) + "\n"


def source_table(releases: Releases) -> str:
    """The text of sources.tsv, which the image's build reads: version, kind, where, package, digest, pattern.

    Args:
        releases: all of them.

    Example:
        >>> source_table(Releases.load()).splitlines()[0].split()[:2]
        ['20.11.4', 'schedmd']
    """
    return "".join("\t".join(row) + "\n" for release in releases.all for row in _source_rows(release))


def _source_rows(release: Release) -> Iterable[tuple[str, ...]]:
    for source in release.sources:
        yield release.version, source.kind, source.where, source.package or "-", source.sha256 or source.commit or "-"
    if patches := release.patches:
        yield release.version, "patches", patches.suite, patches.package, patches.sha256, patches.match


def compose_settings(releases: Releases) -> str:
    """What compose/cluster.yaml takes where nothing is set: the default release.

    Args:
        releases: the releases of releases.yaml.

    Example:
        >>> compose_settings(Releases.load()).splitlines()[-1].partition("=")[0]
        'VERSION'
    """
    default = releases.default()[0]
    return f"# Generated from images/releases.yaml: `invoke build` writes it.\nVERSION={default.version}\n"


def support_table(releases: Releases) -> str:
    """The table of docs/support.md.

    Args:
        releases: the releases of releases.yaml.

    Example:
        >>> support_table(Releases.load()).splitlines()[2].split(" | ")[:3]
        ['| 26.05.5', "Debian's packages (sid)", '2027-11-30']
    """
    # Dates, and not whether they are over: the file must not change as time goes by.
    rows = [
        "| release | built from | supported until | slurmrestd's versions | cgroup | authentication | upgrades from |",
        "|---|---|---|---|---|---|---|",
    ]
    for release in reversed(releases.all):
        built = any(source.known_to_answer for source in release.sources)
        packages = f"Debian's packages ({release.packages.where})" if release.packages else "SchedMD's repository"
        cells = [
            release.version,
            "its source" if built else packages,
            str(release.support_end),
            f"{release.rest[0]} to {release.rest[-1]}",
            ", ".join(version for version in ("v1", "v2") if release.has(f"cgroup_{version}")),
            "munge, auth/slurm" if release.has("auth_slurm") else "munge",
            ", ".join(release.follows),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _with_table(text: str, table: str) -> str:
    """The page with its generated part anew."""
    return re.sub(
        r"(?s)(<!-- generated .*?-->\n).*?(<!-- end -->)", lambda found: f"{found[1]}\n{table}\n{found[2]}", text
    )


def generate(folder: Path | None = None) -> list[Path]:
    """Write the files that are generated from releases.yaml, where they differ.

    Args:
        folder: another folder of images.

    Returns:
        The files that were written.

    Raises:
        SlurmTestbedError: releases.yaml is wrong.

    Example:
        >>> generate()
        []
    """
    folder = folder or data.images()
    releases = Releases.load(folder / FILE)
    texts = {folder / BAKE_FILE: bake_variables(releases), folder / SOURCES_FILE: source_table(releases)}
    if (folder.parent / "compose").exists():
        texts[folder.parent / "compose" / ".env"] = compose_settings(releases)
    page = folder.parent / "docs" / "support.md"
    if page.exists():
        texts[page] = _with_table(page.read_text(), support_table(releases))
    changed = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in changed:
        path.write_text(texts[path])
    return changed


def main() -> int:
    """Write the generated files, and say which have changed.

    Example:
        >>> main()
        0
    """
    try:
        changed = generate()
    except SlurmTestbedError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    sys.stdout.write("".join(f"wrote {path}\n" for path in changed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
