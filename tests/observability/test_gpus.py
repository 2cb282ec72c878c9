"""GPUs of a job, from the node's own tool to the series that Prometheus reads; devices and tool are stand-ins."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fixtures.observability import await_state, events
from slurm_testbed import SlurmCluster

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep


@pytest.mark.row("O-04.4", "O-08.4", "O-08.5", "O-08.6", "O-08.7", "O-08.8", "O-13.1", "O-13.4")
def test_job_has_the_values_of_its_own_gpu(with_gpu_tools: SlurmCluster) -> None:
    slurm = with_gpu_tools
    other = slurm.sbatch(wrap="sleep 600", nodelist="n1", mem="100M")
    job = slurm.sbatch(wrap="sleep 600", nodelist="n1", mem="100M", gres="gpu:1")
    for one in (other, job):
        one.wait(until={"RUNNING"})
        await_state(slurm, one, "running")

    def series() -> dict[str, tuple[dict[str, str], float]]:
        families = text_string_to_metric_families(slurm.observability.api("GET", "metrics").text)
        return {
            sample.name.removeprefix("hpc_job_gpu_"): (sample.labels, sample.value)
            for family in families
            for sample in family.samples
            if sample.name.startswith("hpc_job_gpu_")
        }

    found = slurm.wait_until(lambda: series(), "series of the job's GPU", deadline=60)
    device = {"job_id": str(job.id), "node": "n1", "gpu_vendor": "nvidia", "gpu_id": "0"}
    assert found == {
        "usage_percent": ({"job_id": str(job.id), "user": "alice", "node": "n1"}, 40),
        "device_utilization_percent": (device, 40),
        "device_memory_used_bytes": (device, 1024 * 2**20),
        "device_power_watts": (device, 55.5),
        "device_temperature_celsius": (device, 61),
    }

    def read() -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = slurm.observability.api("GET", f"v1/jobs/{job.id}/metrics").json()["nodes"]
        return [sample for node in nodes for sample in node["samples"]]

    # One that came before the job's start was told is shown, and belongs to no run.
    samples = slurm.wait_until(read, "a sample of the job's run", deadline=60)
    assert [gpu["stand_in"] for gpu in samples[-1]["gpus"]] == [True]
    job.cancel()
    job.wait()
    found_job = await_state(slurm, job, "cancelled")
    assert found_job["gpu_devices"] == ["0"]
    assert found_job["gpu_allocation"] == 1
    assert len(events(slurm, job.id)) == 2
    slurm.wait_until(lambda: not series(), "the series to end with the job", deadline=60)
