"""The container engine: installed, where that is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurm_testbed import engine
from slurm_testbed.engine.install import install
from slurm_testbed.errors import EngineNotFoundError
from tests.unit.engine.conftest import ARCHIVE, BOOKWORM, TRIXIE, UBUNTU, Bench, known


def test_ensure_without_rights_installs_nothing(bench: Bench) -> None:
    with pytest.raises(EngineNotFoundError, match="apt-get install"):
        engine.ensure(machine=replace(bench.machine, is_root=lambda: False))

    assert bench.commands.asked == [], f"it ran {bench.commands.asked}"


def test_ensure_when_forbidden_touches_nothing_and_says_why(bench: Bench) -> None:
    bench.add_dockerd()
    environ = {**bench.machine.environ, "SLURM_TESTBED_INSTALL_ENGINE": "0"}

    with pytest.raises(EngineNotFoundError) as caught:
        engine.ensure(machine=replace(bench.machine, environ=environ))

    assert "SLURM_TESTBED_INSTALL_ENGINE=0" in caught.value.hint, f"the hint is {caught.value.hint!r}"
    assert not bench.machine.state.exists(), "it started something"


def test_ensure_with_docker_host_never_installs_another(bench: Bench) -> None:
    environ = {**bench.machine.environ, "DOCKER_HOST": "unix:///nowhere.sock"}

    with pytest.raises(EngineNotFoundError, match="DOCKER_HOST says"):
        engine.ensure(machine=replace(bench.machine, environ=environ))

    assert bench.commands.asked == [], f"it ran {bench.commands.asked}"


def test_ensure_on_another_distribution_says_what_to_install(bench: Bench) -> None:
    with pytest.raises(EngineNotFoundError, match="install Docker Engine with buildx and compose and start it"):
        engine.ensure(machine=replace(bench.machine, os_release=lambda: {"ID": "fedora"}))


@pytest.mark.parametrize(
    ("release", "packages"),
    [
        (TRIXIE, ["docker.io", "docker-cli", "docker-buildx", "docker-compose", "mmdebstrap"]),
        (UBUNTU, ["docker.io", "docker-buildx", "docker-compose-v2", "mmdebstrap"]),
    ],
    ids=["debian", "ubuntu"],
)
def test_ensure_without_terminal_says_so_installs_and_starts(
    bench: Bench, release: dict[str, str], packages: list[str]
) -> None:
    bench.commands.answers["apt-cache policy"] = known(*packages)
    bench.commands.effect = lambda line: bench.add_dockerd() if " install " in line else None

    client = engine.ensure(interactive=False, machine=replace(bench.machine, os_release=lambda: release))

    assert client.ping(), "the engine does not answer"
    assert bench.commands.installed() == packages, f"installed {bench.commands.installed()}"
    assert "SLURM_TESTBED_INSTALL_ENGINE=0 forbids it" in bench.said[0], f"it said {bench.said}"
    assert not (bench.machine.root / "usr/sbin/policy-rc.d").exists(), "policy-rc.d was left"
    client.close()


def test_install_keeps_packages_from_starting_a_daemon(bench: Bench) -> None:
    policy = bench.machine.root / "usr/sbin/policy-rc.d"
    seen: list[str] = []
    bench.commands.answers["apt-cache policy"] = known("docker.io", "docker-buildx", "docker-compose", "mmdebstrap")
    bench.commands.effect = lambda line: seen.append(policy.read_text()) if " install " in line else None

    install(bench.machine, interactive=False)

    assert seen == ["#!/bin/sh\nexit 101\n"], f"policy-rc.d while installing: {seen}"


def test_ensure_on_a_terminal_asks_and_takes_no_for_an_answer(bench: Bench) -> None:
    asked: list[str] = []
    machine = replace(bench.machine, ask=lambda question: bool(asked.append(question)))

    with pytest.raises(EngineNotFoundError):
        engine.ensure(interactive=True, machine=machine)

    assert "docker.io" in asked[0], f"it asked {asked}"
    assert bench.commands.asked == [], f"it ran {bench.commands.asked}"


def test_install_on_debian_12_takes_the_engine_alone_from_trixie(bench: Bench) -> None:
    etc = bench.machine.root / "etc/apt"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list.d/debian.sources").write_text(
        f"# the archive\nTypes: deb deb-src\nURIs: {ARCHIVE}\nSuites: bookworm bookworm-updates\n"
        " bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
        "Types: deb\nURIs: http://third.example/\nSuites: bookworm\nComponents: main\n\n"
        f"Types: deb\nEnabled: no\nURIs: {ARCHIVE}\nSuites: bookworm\nComponents: contrib\n"
    )
    (etc / "sources.list").write_text(
        f"deb [signed-by=/key.gpg] {ARCHIVE}-security bookworm-security main\n# deb {ARCHIVE} bookworm main\n"
        f"deb-src {ARCHIVE} bookworm main\ndeb http://third.example/ bookworm main\n"
    )
    (etc / "sources.list.d/off.list.disabled").write_text(f"deb {ARCHIVE} bookworm non-free\n")
    bench.commands.answers |= {
        "apt-get indextargets": f"Debian bookworm {ARCHIVE}/\nDebian bookworm-security {ARCHIVE}-security/\n"
        "Third bookworm http://third.example/\n",
        "apt-cache policy": known("docker.io", "docker-cli", "docker-buildx", "docker-compose", "mmdebstrap"),
    }

    install(replace(bench.machine, os_release=lambda: BOOKWORM), interactive=False)

    stanza = (etc / "sources.list.d/slurm-testbed-engine.sources").read_text()
    assert stanza.splitlines() == [
        "Types: deb",
        f"Uris: {ARCHIVE}",
        "Suites: trixie trixie-updates",
        "Components: main",
        "Signed-by: /usr/share/keyrings/debian-archive-keyring.gpg",
    ], f"the new source is\n{stanza}"
    line = (etc / "sources.list.d/slurm-testbed-engine.list").read_text()
    assert line == f"deb [signed-by=/key.gpg] {ARCHIVE}-security trixie-security main\n", f"the line is {line!r}"
    pins = (etc / "preferences.d/slurm-testbed-engine").read_text()
    assert pins == (
        "Package: *\nPin: release n=trixie*\nPin-Priority: 100\n\n"
        "Package: docker.io docker-cli docker-buildx docker-compose containerd\n"
        "Pin: release n=trixie*\nPin-Priority: 600\n"
    ), f"the pins are\n{pins}"


def test_install_that_fails_takes_its_sources_back_and_tells_apts_reason(bench: Bench) -> None:
    etc = bench.machine.root / "etc/apt"
    etc.mkdir(parents=True)
    (etc / "sources.list").write_text(f"deb {ARCHIVE} bookworm main\n")
    bench.commands.failing = " install "
    bench.commands.answers |= {
        "apt-get indextargets": f"Debian bookworm {ARCHIVE}/\n",
        "apt-cache policy": known("docker.io", "docker-buildx", "docker-compose", "mmdebstrap"),
    }

    with pytest.raises(EngineNotFoundError, match="E: Unable to fetch some archives"):
        install(replace(bench.machine, os_release=lambda: BOOKWORM), interactive=False)

    left = [path for path in etc.rglob("slurm-testbed*") if path.is_file()]
    assert left == [], f"it left {left}"


def test_install_names_the_package_that_apt_does_not_know(bench: Bench) -> None:
    bench.commands.answers["apt-cache policy"] = known("docker.io", "mmdebstrap")

    with pytest.raises(EngineNotFoundError, match="apt knows no package docker-buildx, docker-compose"):
        install(bench.machine, interactive=False)
