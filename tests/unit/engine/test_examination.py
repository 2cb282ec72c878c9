"""The container engine: examined."""

from __future__ import annotations

import time
from pathlib import Path

import docker
import pytest

from slurm_testbed import engine
from slurm_testbed.engine import examination, registry
from tests.unit.engine.conftest import Bench


def test_examine_says_what_the_engine_is_and_what_each_lack_costs(client: docker.DockerClient) -> None:
    findings = {finding.name: finding for finding in engine.examine(client)}

    assert list(findings) == [
        *("engine", "BuildKit", "compose", "cgroup", "storage", "capabilities"),
        *("FUSE", "KVM", "registry", "CPUs", "memory"),
    ], f"found {list(findings)}"
    assert client.version()["Version"] in findings["engine"].value, findings["engine"]
    assert findings["CPUs"].value == str(client.info()["NCPU"]), findings["CPUs"]
    assert findings["FUSE"].ok == Path("/dev/fuse").exists(), findings["FUSE"]
    for finding in findings.values():
        assert finding.ok == (not finding.cost), f"a lack without cost, or a cost without lack: {finding}"


@pytest.mark.parametrize(
    ("bounds", "missing"),
    [
        ("000001ffffffffff", []),
        ("000001fffeffffff", ["SYS_RESOURCE"]),
        ("00000000a80425fb", ["SYS_PTRACE", "SYS_ADMIN", "SYS_NICE", "SYS_RESOURCE"]),
    ],
)
def test_missing_capabilities_are_read_from_the_bounding_set(bounds: str, missing: list[str]) -> None:
    found = examination._missing_capabilities(f"Name:\tdockerd\nCapEff:\t0000\nCapBnd:\t{bounds}\nCapAmb:\t00\n")

    assert found == missing, f"found {found}"


@pytest.mark.parametrize(("image", "answers"), [("there:1", True), ("none:1", False), ("silent:1", False)])
def test_registry_answers_within_its_time_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, image: str, answers: bool
) -> None:
    monkeypatch.setattr(registry, "REGISTRY_SECONDS", 0.5)
    bench.add_dockerd()
    client = engine.ensure(machine=bench.machine)
    started = time.monotonic()

    found = engine.registry_answers(client, image=image)

    assert found == answers, f"{image}: {found}"
    assert time.monotonic() - started < 5, f"it took {time.monotonic() - started:.1f} s"
    client.close()


def test_registry_of_an_unknown_host_does_not_answer(client: docker.DockerClient) -> None:
    assert not engine.registry_answers(client, image="nowhere.invalid/none:1"), "a host that cannot be has a registry"
