"""The agent's numbers against the kernel's own, in one container, under the cgroup version that the host has."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from fixtures.made import MakeImages
from fixtures.truth import MIB, Truth
from slurm_testbed import SlurmContainer
from slurm_testbed.images import image_name
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Job, Slurm

_log = logging.getLogger(__name__)

#: Service and agent beside each other, as on a machine that is a whole cluster.
SERVICES = {
    "SLURM_TESTBED_ROLE": "cluster",
    "SLURM_TESTBED_SERVICES": "slurm-observability slurm-observability-agent",
    "OBSERVABILITY_INTERVAL": "1",
}
#: Says where the kernel has the job; then one step holds memory and burns a processor.
SCRIPT = """#!/bin/sh
cat /proc/self/cgroup > cgroup.$SLURM_JOB_ID
srun --overlap python3 -c '
held = bytearray(b"x") * (200 << 20)
while True: pass'
"""


#: Asks the service from within: its port is not published.
ASK = """
import sys, urllib.request
request = urllib.request.Request("http://localhost:8080" + sys.argv[1])
token = open("/var/lib/slurm-observability/reader.token").read().strip()
request.add_header("Authorization", "Bearer " + token)
sys.stdout.write(urllib.request.urlopen(request).read().decode())
"""


@pytest.fixture(scope="module")
def watched(slurm_release: Release, make_images: MakeImages) -> Iterator[Slurm]:
    """A whole cluster in one container, with service and agent, that holds jobs in cgroups."""
    make_images(slurm_release, "observability")
    image = image_name("observability", slurm_release.version)
    with SlurmContainer(image=image, accounting=False, cgroups=True, cpus=2, memory=2000, env=SERVICES) as slurm:
        slurm.wait_until(lambda: ask(slurm, "/v1/health"), "the service to answer", deadline=60)
        yield slurm


def test_jobs_that_run_before_the_agent_leave_their_records(slurm_release: Release, make_images: MakeImages) -> None:
    """The cluster is ready within a second, and Python takes as long to start; here the agent never does."""
    make_images(slurm_release, "observability")
    image = image_name("observability", slurm_release.version)
    with SlurmContainer(image=image, accounting=False, env={"SLURM_TESTBED_ROLE": "cluster"}) as slurm:
        job = slurm.sbatch(wrap="true", output="/dev/null")
        job.wait()

        def left() -> list[str]:
            names = slurm.run(["ls", "/var/spool/slurm-observability/new"], check=False).stdout.split()
            return sorted(name.split(".")[1] for name in names if name.startswith(f"{job.id}."))

        wanted = ["epilog", "epilogslurmctld", "prolog", "prologslurmctld"]
        slurm.wait_until(lambda: left() == wanted, "a record of each of the four scripts", state=lambda: str(left()))


def ask(slurm: Slurm, path: str) -> dict[str, Any]:
    """What the service answers; nothing where it does not, or knows nothing of it."""
    answer = slurm.run(["python3", "-c", ASK, path], check=False).stdout
    found: dict[str, Any] = json.loads(answer) if answer.startswith("{") else {}
    return found


def samples(slurm: Slurm, job: Job) -> list[dict[str, Any]]:
    """What the service keeps of a job on its only node, oldest first; nothing before it knows of the job."""
    nodes = ask(slurm, f"/v1/jobs/{job.id}/metrics").get("nodes", [])
    return nodes[0]["samples"] if nodes else []


def check_job(slurm: Slurm) -> str:
    """Run a job that holds 200 MiB and burns a processor, and compare; the last part of its group's path.

    `pytest --log-cli-level=info` shows the numbers.
    """
    job = slurm.sbatch(script=SCRIPT, mem="400M", cpus_per_task=2)
    job.wait(until={"RUNNING"})
    truth = Truth(slurm, job, slurm.controller)

    def settled() -> bool:
        held = [sample["memory_usage_bytes"] or 0 for sample in samples(slurm, job)[-3:]]
        return len(held) == 3 and min(held) > 200 * MIB and max(held) < 1.01 * min(held)

    slurm.wait_until(settled, "200 MiB in the service", deadline=60, state=lambda: str(samples(slurm, job)[-1:]))
    began, first = truth.cpu()
    memory = [truth.memory()]

    def within(until: float) -> list[dict[str, Any]]:
        found = [(datetime.fromisoformat(sample["timestamp"]).timestamp(), sample) for sample in samples(slurm, job)]
        return [sample for at, sample in found if began <= at <= until]

    # An emulated processor takes longer for a sample.
    slurm.wait_until(
        lambda: (now := time.time()) - began > 20 and len(within(now)) > 4, "20 s and five samples", deadline=60
    )
    memory.append(truth.memory())
    ended, last = truth.cpu()
    kept = within(ended)
    job.cancel()

    times = [datetime.fromisoformat(sample["timestamp"]).timestamp() for sample in (kept[0], kept[-1])]
    burnt = kept[-1]["cpu_seconds"] - kept[0]["cpu_seconds"]
    cpu = {"kernel": 100 * (last - first) / (ended - began) / 2, "read": 100 * burnt / (times[1] - times[0]) / 2}
    shown = kept[-1]["memory_usage_bytes"]
    held = {"kernel": min(memory, key=lambda value: abs(value - shown)), "read": shown}
    _log.info("group %s, CPU in percent %s, bytes of memory %s", truth.group, cpu, held)
    assert cpu["read"] == pytest.approx(cpu["kernel"], abs=2)
    assert held["read"] == pytest.approx(held["kernel"], rel=0.02)
    return truth.group


@pytest.mark.vm
@pytest.mark.row("O-07.1", "O-09.1", "O-09.2")
@pytest.mark.requires("cgroup_v2")
def test_numbers_are_the_kernels_under_cgroup_v2(watched: Slurm, slurm_release: Release) -> None:
    group = check_job(watched)

    assert group.startswith("s" if slurm_release.has("sluid_cgroups") else "job_")


@pytest.mark.vm
@pytest.mark.row("O-07.4")
@pytest.mark.requires("cgroup_v2", "sluid_cgroups")
def test_job_whose_group_has_a_sluid_is_found(watched: Slurm) -> None:
    """26.05 names groups by SLUID by itself (cgroup.conf(5), CgroupJobIdPaths)."""
    assert re.fullmatch("s[0-9A-Z]{13}", check_job(watched))


@pytest.mark.row("O-07.2", "O-09.1", "O-09.2")
@pytest.mark.requires("cgroup_v1")
def test_numbers_are_the_kernels_under_cgroup_v1(watched: Slurm) -> None:
    assert check_job(watched).startswith("job_")


@pytest.mark.deep
def test_restarted_container_keeps_its_jobs_and_tokens(watched: Slurm) -> None:
    job = watched.sbatch(wrap="true")
    job.wait()
    watched.wait_until(lambda: ask(watched, f"/v1/jobs/{job.id}").get("state") == "completed", "the job in the service")

    assert isinstance(watched, SlurmContainer)
    watched.container.restart(timeout=30)

    # The reader's token is the old one: the service still knows it.
    watched.wait_until(lambda: ask(watched, f"/v1/jobs/{job.id}").get("state") == "completed", "the job again")
    watched.wait_until(lambda: watched.srun("hostname").strip(), "a job to run")
