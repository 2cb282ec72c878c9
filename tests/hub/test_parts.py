"""The stack with a hub made part by part, in the order in which the parts need each other, and all at once."""

from __future__ import annotations

import re

import pytest
import requests

from fixtures.hub import HubStart
from fixtures.tasks import Invoke
from slurm_testbed.releases import Release


@pytest.mark.deep
@pytest.mark.row("H-01.1", "H-01.3")
def test_each_part_has_a_task_and_refuses_to_come_before_what_it_needs(
    invoke: Invoke, hub_start: HubStart, slurm_release: Release
) -> None:
    without_network = invoke("up.slurm")
    network = invoke("up.network", "--release", slurm_release.version, "--nodes", "1")
    without_storage = invoke("up.slurm")
    storage = invoke("up.storage")
    without_slurm = invoke("up.jupyterhub")
    slurm = invoke("up.slurm")
    rest = invoke("up.jupyterhub", "up.jupyter")

    assert [one.returncode for one in (network, storage, slurm, rest)] == [0, 0, 0, 0], slurm.stderr + rest.stderr
    assert [one.returncode for one in (without_network, without_storage, without_slurm)] == [2, 2, 2]
    assert "make one first: invoke up.network" in without_network.stderr
    assert "slurm needs storage\nHint: make it first: invoke up.storage" in without_storage.stderr
    assert "jupyterhub needs slurm\nHint: make it first: invoke up.slurm" in without_slurm.stderr
    assert _pages(rest.stdout) == ["JupyterHub", "JupyterLab"]
    ran = invoke("shell", "--host", "jupyter", "--command", "srun --chdir=/tmp hostname")
    assert ran.stdout.strip() == "n1", ran.stderr


@pytest.mark.deep
@pytest.mark.row("H-01.2", "H-01.3")
def test_one_task_makes_all_and_each_host_waits_for_what_it_needs(
    invoke: Invoke, hub_start: HubStart, slurm_release: Release
) -> None:
    up = invoke("up.hub", "--release", slurm_release.version, "--nodes", "1")

    assert up.returncode == 0, up.stderr
    assert _pages(up.stdout) == ["JupyterHub", "JupyterLab"]
    assert set(re.findall(r"^(\w+) +[0-9a-f]{18}$", up.stdout, re.MULTILINE)) == {"alice", "bob", "carol", "dave"}
    for host in ("hub", "jupyter"):
        log = invoke("logs", "--host", host).stdout
        order = [
            log.find(step)
            for step in ("keys: /etc/munge/munge.key", "configuration: /shared/slurm-config/slurm.conf", "ready: ")
        ]
        assert -1 not in order, log
        assert order == sorted(order), log
    assert "removed container" in invoke("down").stdout


def _pages(text: str) -> list[str]:
    """What the pages of a text are, asked of their addresses."""
    found = re.findall(r"http://127\.0\.0\.1:\S+", text)
    pages = [requests.get(url, timeout=30).text for url in found]
    return [re.findall(r"<title>\s*(\w+)", page)[0] for page in pages]
