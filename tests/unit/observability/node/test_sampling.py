"""Samples of what jobs use."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from slurm_observability.node.cgroups import Cgroups, CgroupsV1, CgroupsV2
from slurm_observability.node.delivery import Service
from slurm_observability.node.gpus import AmdGpus, GpuError, Gpus, NvidiaGpus
from slurm_observability.node.jobs import Jobs
from slurm_observability.node.sampling import Sampler, Sampling
from slurm_observability.node.spool import RunningJob, Spool
from slurm_observability.schema import NodeSample

from tests.unit.observability.node.conftest import SLUID, FakeService, Tree

# Answers of the real tools, with their own gaps.
NVIDIA = """0, NVIDIA A100-SXM4-40GB, 37, 1024, 61.35, 34
1, NVIDIA A100-SXM4-40GB, [N/A], [N/A], [Not Supported], [N/A]
"""
AMD = """WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status
{"card0": {"GPU use (%)": "12", "VRAM Total Memory (B)": "68702699520", "VRAM Total Used Memory (B)": "10960896",
"Average Graphics Package Power (W)": "91.0", "Temperature (Sensor edge) (C)": "36.0",
"Temperature (Sensor junction) (C)": "38.0", "Card Series": "Instinct MI210"},
"card1": {"GPU use (%)": "0", "Current Socket Graphics Package Power (W)": "140.0",
"Temperature (Sensor junction) (C)": "N/A", "Card Series": "stand-in"}, "system": {"Driver version": "6.2.4"}}
"""


def sampler(cgroups: Cgroups | None, spool: Spool, *jobs: RunningJob, gpus: list[Gpus] | None = None) -> Sampler:
    return Sampler(cgroups, Jobs(spool, jobs), gpus or [], host="host", cluster=lambda: "testbed")


def running(job_id: int, node: str = "n1", **values: object) -> RunningJob:
    return RunningJob.model_validate({"node": node, "job_id": job_id, "begun_ns": 1, **values})


def tool(tmp_path: Path, name: str, text: str = "", *, status: int = 0) -> str:
    """A command that prints this."""
    path = tmp_path / name
    (tmp_path / f"{name}.txt").write_text(text)
    path.write_text(f'#!/bin/sh\necho "$@" > {path}.arguments\ncat {path}.txt\nexit {status}\n')
    path.chmod(0o755)
    return str(path)


def test_job_is_told_with_all_that_was_read(tree: Tree, spool: Spool) -> None:
    path = tree.job_v1(12, steps=("0", "extern"))

    [sample] = sampler(CgroupsV1(tree.root), spool, running(12, cpus=2)).sample()

    [job] = sample.jobs
    assert (sample.node, sample.cluster, sample.job_count, sample.unread) == ("n1", "testbed", 1, [])
    assert (job.job_id, job.cpu_seconds, job.memory_usage_bytes, job.peak_memory_bytes) == (12, 1.5, 1000, 3000)
    assert (job.cgroup_path, job.suspended, job.cpu_usage_percent) == (path, False, None)
    assert [(step.name, step.cpu_seconds, step.memory_bytes) for step in job.steps] == [
        ("0", 0.5, 400),
        ("extern", 0.5, 400),
    ]
    assert NodeSample.model_validate_json(sample.model_dump_json()) == sample


@pytest.mark.parametrize(("prolog_told", "cpus"), [(True, 4), (False, 2)])
def test_cpu_is_percent_of_the_jobs_cpus_between_two_readings(
    tree: Tree, spool: Spool, prolog_told: bool, cpus: int
) -> None:
    # The cpuset has two.
    tree.job_v1(12, cpu_ns=0)
    samples = sampler(CgroupsV1(tree.root), spool, *([running(12, cpus=4)] if prolog_told else []))
    before = time.monotonic()
    samples.sample()
    between = time.monotonic()
    time.sleep(0.2)
    tree.job_v1(12, cpu_ns=400_000_000)
    meanwhile = time.monotonic()
    [sample] = samples.sample()
    after = time.monotonic()

    percent = sample.jobs[0].cpu_usage_percent
    assert percent is not None
    assert 100 * 0.4 / (after - before) / cpus <= percent <= 100 * 0.4 / (meanwhile - between) / cpus
    assert sample.unread == []


def test_counter_that_begins_anew_gives_no_percentage(tree: Tree, spool: Spool) -> None:
    samples = sampler(CgroupsV1(tree.root), spool, running(12, cpus=4))
    tree.job_v1(12, cpu_ns=400_000_000)
    samples.sample()
    tree.job_v1(12, cpu_ns=100_000_000)

    assert samples.sample()[0].jobs[0].cpu_usage_percent is None


def test_unknown_number_of_cpus_is_said(tree: Tree, spool: Spool) -> None:
    path = tree.job_v1(12)
    (tree.root / f"cpuset{path}/cpuset.cpus").unlink()

    [sample] = sampler(CgroupsV1(tree.root), spool).sample()

    assert [unread.what for unread in sample.unread] == ["job 12"]
    assert "CPUs" in sample.unread[0].why


def test_several_nodes_on_a_host_have_a_sample_each(tree: Tree, spool: Spool) -> None:
    tree.job_v1(12, "n1")
    tree.job_v1(12, "n2")
    tree.write({"memory/slurm_n3/memory.usage_in_bytes": 1})

    samples = sampler(CgroupsV1(tree.root), spool).sample()

    assert [(sample.node, [job.job_id for job in sample.jobs]) for sample in samples] == [
        ("n1", [12]),
        ("n2", [12]),
        ("n3", []),
    ]


def test_folder_that_only_we_keep_is_no_running_job(tree: Tree, spool: Spool) -> None:
    tree.job_v1(12, steps=())

    [sample] = sampler(CgroupsV1(tree.root), spool, running(12)).sample()

    assert sample.jobs == []


def test_sluid_that_nobody_knows_is_said(tree: Tree, spool: Spool) -> None:
    path = tree.job_v2(SLUID)

    [sample] = sampler(CgroupsV2(tree.root), spool).sample()

    assert sample.jobs == []
    assert [unread.what for unread in sample.unread] == [path]


def test_sluid_that_a_prolog_told_is_its_job(tree: Tree, spool: Spool) -> None:
    tree.job_v2(SLUID)

    [sample] = sampler(CgroupsV2(tree.root), spool, running(12, sluid=SLUID)).sample()

    assert [(job.job_id, job.cpu_seconds) for job in sample.jobs] == [(12, 1.5)]


def test_what_could_not_be_read_is_said(tree: Tree, spool: Spool) -> None:
    path = tree.job_v1(12)
    (tree.root / f"cpuacct{path}/cpuacct.usage").unlink()

    [sample] = sampler(CgroupsV1(tree.root), spool).sample()

    assert sample.jobs[0].cpu_seconds is None
    assert [unread.what for unread in sample.unread] == ["job 12"]


@pytest.mark.parametrize("with_tree", [True, False])
def test_jobs_without_cgroups_are_told_without_values(tree: Tree, spool: Spool, with_tree: bool) -> None:
    (tree.root / "memory").mkdir()
    cgroups = CgroupsV1(tree.root) if with_tree else None

    [sample] = sampler(cgroups, spool, running(12, node="host")).sample()

    assert [(job.job_id, job.cpu_seconds) for job in sample.jobs] == [(12, None)]
    assert [unread.what for unread in sample.unread] == ["job 12"]


def test_node_is_told_without_jobs(spool: Spool) -> None:
    [sample] = sampler(None, spool).sample()

    assert (sample.node, sample.job_count) == ("host", 0)
    assert (sample.memory_usage_bytes or 0) > 0
    assert sample.cpu_usage_percent is not None


def test_last_reading_is_in_the_next_sample_alone(tree: Tree, spool: Spool) -> None:
    tree.job_v1(12, steps=())
    cgroups = CgroupsV1(tree.root)
    samples = sampler(cgroups, spool)
    [folder] = cgroups.folders()

    samples.ended(folder, "n1", 12, cgroups.read(folder))

    assert [[job.cpu_seconds for job in sample.jobs] for sample in (*samples.sample(), *samples.sample())] == [
        [1.5],
        [],
    ]


def test_young_job_is_read_more_often_but_never_at_any_cost(tree: Tree, spool: Spool) -> None:
    samples = sampler(CgroupsV1(tree.root), spool)
    samples.sample()
    assert samples.pause() == 10

    tree.job_v1(12)
    samples.sample()
    samples.cost = 0.001
    assert samples.pause() == 1

    samples.cost = 0.1
    assert samples.pause() == pytest.approx(14.3, abs=0.1)


def test_job_that_the_service_was_not_told_of_is_said(tree: Tree, spool: Spool, service: FakeService) -> None:
    tree.job_v1(12)
    service.answer = lambda _: (200, {}, json.dumps({"recorded": True, "unknown_jobs": [12]}).encode())
    sending = Sampling(sampler(CgroupsV1(tree.root), spool), Service(service.url))

    sending.send()
    sending.send()

    assert [request.path for request in service.requests] == ["/v1/samples"] * 2
    assert service.requests[0].body["unread"] == []
    assert "left no record" in service.requests[1].body["unread"][0]["why"]


# --- GPUs ----------------------------------------------------------------------------------------------------


@pytest.mark.row("O-13.1")
def test_nvidia_smi_is_asked_and_understood(tmp_path: Path) -> None:
    first, second = NvidiaGpus(tool(tmp_path, "nvidia-smi", NVIDIA)).read().values()

    assert "--query-gpu=" in (tmp_path / "nvidia-smi.arguments").read_text()
    assert first.model_dump() == {
        "gpu_id": "0",
        "gpu_vendor": "nvidia",
        "utilization_percent": 37.0,
        "memory_used_bytes": 1024 * 2**20,
        "power_watts": 61.35,
        "temperature_celsius": 34.0,
        "stand_in": False,
    }
    assert (second.utilization_percent, second.memory_used_bytes, second.power_watts) == (None, None, None)


@pytest.mark.row("O-13.2")
def test_rocm_smi_is_asked_and_understood(tmp_path: Path) -> None:
    first, second = AmdGpus(tool(tmp_path, "rocm-smi", AMD)).read().values()

    assert "--json" in (tmp_path / "rocm-smi.arguments").read_text()
    assert first.model_dump() == {
        "gpu_id": "0",
        "gpu_vendor": "amd",
        "utilization_percent": 12.0,
        "memory_used_bytes": 10960896,
        "power_watts": 91.0,
        "temperature_celsius": 36.0,
        "stand_in": False,
    }
    assert (second.power_watts, second.temperature_celsius, second.memory_used_bytes) == (140.0, None, None)
    assert second.stand_in


@pytest.mark.parametrize(("text", "status"), [("no devices", 9), ("nonsense", 0), ("x, y, 1, 2, 3, 4", 0)])
def test_tool_that_fails_says_so(tmp_path: Path, text: str, status: int) -> None:
    with pytest.raises(GpuError, match="nvidia-smi"):
        NvidiaGpus(tool(tmp_path, "nvidia-smi", text, status=status)).read()
    with pytest.raises(GpuError, match="rocm-smi"):
        AmdGpus(tool(tmp_path, "rocm-smi", text, status=status)).read()


def test_job_has_its_own_gpus_alone(tree: Tree, spool: Spool, tmp_path: Path) -> None:
    tree.job_v1(12)
    tree.job_v1(13)
    nvidia = NvidiaGpus(tool(tmp_path, "nvidia-smi", NVIDIA.replace("NVIDIA A100", "stand-in")))

    [sample] = sampler(CgroupsV1(tree.root), spool, running(12, gpus=["1"]), running(13), gpus=[nvidia]).sample()

    assert {job.job_id: [(g.gpu_id, g.stand_in) for g in job.gpus] for job in sample.jobs} == {
        12: [("1", True)],
        13: [],
    }


def test_gpus_that_cannot_be_read_are_said(tree: Tree, spool: Spool, tmp_path: Path) -> None:
    tree.job_v1(12)
    broken = NvidiaGpus(tool(tmp_path, "nvidia-smi", "NVIDIA-SMI has failed", status=9))

    [none] = sampler(CgroupsV1(tree.root), spool, running(12, cpus=1, gpus=["0"])).sample()
    [failed] = sampler(CgroupsV1(tree.root), spool, running(12, cpus=1, gpus=["0"]), gpus=[broken]).sample()

    assert [(unread.what, "nvidia-smi" in unread.why) for unread in none.unread] == [("GPUs", True)]
    assert "NVIDIA-SMI has failed" in failed.unread[0].why


def test_tool_is_not_asked_while_no_job_has_a_gpu(tree: Tree, spool: Spool, tmp_path: Path) -> None:
    tree.job_v1(12)
    sampler(CgroupsV1(tree.root), spool, running(12), gpus=[NvidiaGpus(tool(tmp_path, "nvidia-smi", NVIDIA))]).sample()

    assert not (tmp_path / "nvidia-smi.arguments").exists()
