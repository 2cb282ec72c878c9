"""Chromium for the tests: found, or installed where that is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.browser import NoBrowserError, chromium
from slurm_testbed.errors import PackagesError
from tests.unit.engine.conftest import UBUNTU, Bench


def add_chromium(bench: Bench, name: str = "chromium") -> str:
    """Put an empty program on the machine's PATH."""
    (bench.bin / name).touch(mode=0o755)
    return str(bench.bin / name)


@pytest.mark.parametrize("name", ["chromium", "google-chrome"])
def test_chromium_that_is_there_is_taken(bench: Bench, name: str) -> None:
    there = add_chromium(bench, name)

    assert chromium(machine=replace(bench.machine, is_root=lambda: False)) == there
    assert bench.commands.asked == [], f"it ran {bench.commands.asked}"


def test_chromium_is_installed_by_root_on_debian(bench: Bench) -> None:
    bench.commands.effect = lambda line: add_chromium(bench) and None if " install " in line else None

    assert chromium(machine=bench.machine) == str(bench.bin / "chromium")
    assert bench.commands.installed() == ["chromium"]
    assert "SLURM_TESTBED_INSTALL_ENGINE=0 forbids it" in bench.said[0], f"it said {bench.said}"


def test_chromium_is_installed_for_nobody_else_and_the_reason_said(bench: Bench) -> None:
    forbidden = {**bench.machine.environ, "SLURM_TESTBED_INSTALL_ENGINE": "0"}
    machines = {
        "only root may install it: apt-get install chromium": replace(bench.machine, is_root=lambda: False),
        "installed by itself on Debian only": replace(bench.machine, os_release=lambda: UBUNTU),
        "SLURM_TESTBED_INSTALL_ENGINE=0 forbids": replace(bench.machine, environ=forbidden),
    }

    for why, machine in machines.items():
        with pytest.raises(NoBrowserError, match=why):
            chromium(machine=machine)
    assert bench.commands.asked == [], f"it ran {bench.commands.asked}"


def test_failed_installation_is_no_reason_to_skip(bench: Bench) -> None:
    bench.commands.failing = " install "

    with pytest.raises(PackagesError, match="E: Unable to fetch some archives"):
        chromium(machine=bench.machine)
