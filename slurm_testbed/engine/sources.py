"""Let apt take the engine from a newer Debian where the machine's own is too old."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from slurm_testbed.engine.apt import apt_environment
from slurm_testbed.engine.machine import Machine
from slurm_testbed.engine.packages import DEBIAN_ENOUGH
from slurm_testbed.errors import EngineNotFoundError

_APT_FILE = "slurm-testbed-engine"


@contextlib.contextmanager
def sources_of_newer_release(machine: Machine, codename: str, packages: Sequence[str]) -> Iterator[None]:
    """Let apt take the engine, and only the engine, from a newer Debian; taken back if the body fails.

    The new sources are the machine's own with another suite, so that a mirror stays a mirror.
    """
    newer = DEBIAN_ENOUGH[1]
    targets = machine.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(ORIGIN) $(RELEASE) $(REPO_URI)",
            "Created-By: Packages",
        ],
        apt_environment(machine),
    ).stdout
    debians = [line.split() for line in targets.splitlines() if line.startswith("Debian ")]
    etc = machine.root / "etc/apt"
    pins = _pin(" ".join(packages), newer, 600)
    files: dict[Path, str] = {}
    if newer not in {release for _, release, _ in debians}:
        uris = {uri.rstrip("/") for _, _, uri in debians}
        for kind, text in _newer_sources(etc, codename, newer, uris).items():
            files[etc / f"sources.list.d/{_APT_FILE}.{kind}"] = text
        if not files:
            raise EngineNotFoundError(
                f"apt's sources name no Debian {codename} archive from which a newer engine could be had: "
                "install Docker Engine with buildx and compose yourself"
            )
        # Without this pin apt would take everything from the newer release.
        pins = f"{_pin('*', newer, 100)}\n{pins}"
    files[etc / f"preferences.d/{_APT_FILE}"] = pins
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        yield
    except BaseException:
        for path in files:
            path.unlink(missing_ok=True)
        raise


def _pin(packages: str, codename: str, priority: int) -> str:
    # The star also covers the security and update suites, whose codename has a suffix.
    return f"Package: {packages}\nPin: release n={codename}*\nPin-Priority: {priority}\n"


def _newer_sources(etc: Path, codename: str, newer: str, uris: set[str]) -> dict[str, str]:
    """The machine's own Debian sources with another suite, by kind of file: `sources` and `list`."""
    suite = re.compile(rf"{re.escape(codename)}(-updates|-security)?$")
    stanzas, lines = [], []
    # apt too ignores files with any other ending.
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        parts = re.split(r"\n\s*\n", path.read_text())
        stanzas += [_newer_stanza(part, suite, newer, uris) for part in parts]
    for path in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        if path.exists():
            lines += [_newer_line(line, suite, newer, uris) for line in path.read_text().splitlines()]
    found = {"sources": "\n".join(filter(None, stanzas)), "list": "".join(filter(None, lines))}
    return {kind: text for kind, text in found.items() if text}


def _newer_stanza(stanza: str, suite: re.Pattern[str], newer: str, uris: set[str]) -> str:
    """A stanza of a .sources file (deb822) with the newer suite; empty when it is no Debian archive."""
    fields: dict[str, list[str]] = {}
    for line in stanza.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0].isspace():  # the field goes on, as an embedded key does
            fields[list(fields)[-1]].append(line)
        else:
            name, _, value = line.partition(":")
            fields[name.capitalize()] = [value.strip()]

    def words(name: str) -> list[str]:
        return " ".join(fields.get(name, [])).split()

    suites = [_newer_suite(word, suite, newer) for word in words("Suites") if suite.match(word)]
    known = uris.intersection(uri.rstrip("/") for uri in words("Uris"))
    if not suites or not known or "deb" not in words("Types") or words("Enabled") == ["no"]:
        return ""
    fields |= {"Suites": [" ".join(suites)], "Types": ["deb"]}
    return "".join(f"{name}: " + "\n".join(lines) + "\n" for name, lines in fields.items())


def _newer_line(line: str, suite: re.Pattern[str], newer: str, uris: set[str]) -> str:
    """A line of a .list file with the newer suite; empty when it is no Debian archive."""
    match = re.match(r"(deb\s+(?:\[[^\]]*\]\s+)?)(\S+)(\s+)(\S+)(\s.*)", line)
    if not match or match[2].rstrip("/") not in uris or not suite.match(match[4]):
        return ""
    return f"{match[1]}{match[2]}{match[3]}{_newer_suite(match[4], suite, newer)}{match[5]}\n"


def _newer_suite(name: str, suite: re.Pattern[str], newer: str) -> str:
    return suite.sub(rf"{newer}\1", name)
