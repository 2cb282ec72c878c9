"""The numbers are the kernel's: known amounts, held and burned in one step and in many."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from fixtures.observability import await_state
from fixtures.truth import MIB, Truth
from slurm_testbed import SlurmCluster
from slurm_testbed.errors import ObservabilityError
from slurm_testbed.slurm import Job

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep

#: Says where the kernel has the job, runs a program in so many steps, and waits for them.
SCRIPT = """#!/bin/sh
cat /proc/self/cgroup > cgroup.$SLURM_JOB_ID
for step in $(seq {steps}); do srun --overlap --ntasks=1 --mem={mib}M python3 -c '{program}' & done
wait
"""
HOLD = 'import time; held = bytearray(b"x") * ({mib} << 20); time.sleep(600)'
BURN = "while True: pass"


def samples(slurm: SlurmCluster, job: Job) -> list[dict[str, Any]]:
    """What the service keeps of a job on its only node, oldest first; nothing before it knows of the job."""
    try:
        nodes = slurm.observability.api("GET", f"v1/jobs/{job.id}/metrics").json()["nodes"]
    except ObservabilityError as error:
        if error.status != 404:
            raise
        return []
    return nodes[0]["samples"] if nodes else []


def resident(slurm: SlurmCluster, command: str, job: Job) -> int:
    """What sstat or sacct knows of the memory that the processes of a job's steps had at most, in bytes."""
    options = ["--noheader", "--noconvert", "--format=MaxRSS", f"--jobs={job.id}"]
    more = ["--allsteps"] if command == "sstat" else []
    words = slurm.run([command, *more, *options]).stdout.split()
    return sum(int(word) for word in words)


@pytest.mark.row("O-04.5", "O-04.8", "O-07.2", "O-07.3", "O-09.2", "O-09.3", "O-09.4")
@pytest.mark.parametrize("steps", [1, 8])
def test_memory_is_the_kernels(observed: SlurmCluster, steps: int) -> None:
    each = 200 // steps
    script = SCRIPT.format(steps=steps, mib=each + 50, program=HOLD.format(mib=each))
    job = observed.sbatch(script=script, mem="900M", nodelist="n1")
    job.wait(until={"RUNNING"})
    truth = Truth(observed, job, "n1")

    def read() -> dict[str, Any] | None:
        """The last reading, when every step has what it holds and nothing moves."""
        last = samples(observed, job)[-3:]
        if not last or any(holding(sample) < steps for sample in last):
            return None
        used = [sample["memory_usage_bytes"] for sample in last]
        return last[-1] if max(used) < 1.01 * min(used) else None

    def holding(sample: dict[str, Any]) -> int:
        return sum((step["memory_bytes"] or 0) > each * MIB for step in sample["steps"])

    # The kernel's number moves a little: the service's lies between two readings, or near one of them.
    observed.wait_until(read, "200 MiB in the service", deadline=90, state=lambda: str(samples(observed, job)[-1:]))
    before, shown, after = truth.memory(), read(), truth.memory()
    assert shown is not None
    nearest = min((before, after), key=lambda value: abs(value - shown["memory_usage_bytes"]))
    assert shown["memory_usage_bytes"] > 200 * MIB
    assert shown["memory_usage_bytes"] == pytest.approx(nearest, rel=0.02)
    assert shown["peak_memory_bytes"] >= shown["memory_usage_bytes"]
    # Slurm adds up processes, the kernel what is charged to their group.
    observed.wait_until(lambda: resident(observed, "sstat", job) > 200 * MIB, "200 MiB in sstat", deadline=60)
    assert resident(observed, "sstat", job) == pytest.approx(shown["memory_usage_bytes"], rel=0.1)
    job.cancel()
    job.wait()
    found = await_state(observed, job, "cancelled")
    assert found["peak_memory_bytes"] >= shown["memory_usage_bytes"]
    assert resident(observed, "sacct", job) == pytest.approx(shown["memory_usage_bytes"], rel=0.1)


def cpu_at(readings: list[tuple[float, float]], moment: float) -> float:
    """The CPU seconds at a moment between two of the kernel's numbers, which are some tenths of a second apart."""
    after = max(1, next(at for at, (time, _) in enumerate(readings) if time >= moment))
    (began, first), (ended, last) = readings[after - 1 : after + 1]
    return first + (last - first) * (moment - began) / (ended - began)


@pytest.mark.row("O-09.1")
@pytest.mark.parametrize("steps", [1, 4])
def test_one_of_two_processors_is_half(observed: SlurmCluster, steps: int) -> None:
    # Bound to one processor, whatever the number of steps: `taskset` holds within the job's set.
    program = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})\n{BURN}"
    script = SCRIPT.format(steps=steps, mib=50, program=program)
    job = observed.sbatch(script=script, mem="500M", cpus_per_task=2, nodelist="n1")
    job.wait(until={"RUNNING"})
    truth = Truth(observed, job, "n1")
    observed.wait_until(lambda: len(samples(observed, job)) > 3, "samples of the job", deadline=60)

    readings = [truth.cpu()]

    def passed() -> float:
        readings.append(truth.cpu())
        return readings[-1][0] - readings[0][0]

    observed.wait_until(lambda: passed() > 10, "10 s to pass", state=lambda: f"{passed():.1f} s")
    within = [
        sample
        for sample in samples(observed, job)
        if readings[0][0] <= datetime.fromisoformat(sample["timestamp"]).timestamp() <= readings[-1][0]
    ]
    assert len(within) >= 3
    span = [datetime.fromisoformat(sample["timestamp"]).timestamp() for sample in (within[0], within[-1])]
    # What else runs on this machine takes more at one time than at another: both speak of the same time.
    first, last = (cpu_at(readings, moment) for moment in span)
    kernel = 100 * (last - first) / (span[1] - span[0]) / 2
    counted = 100 * (within[-1]["cpu_seconds"] - within[0]["cpu_seconds"]) / (span[1] - span[0]) / 2
    shown = [sample["cpu_usage_percent"] for sample in within[1:]]
    assert counted == pytest.approx(kernel, abs=2)
    assert sum(shown) / len(shown) == pytest.approx(kernel, abs=2)
    job.cancel()
    job.wait()
