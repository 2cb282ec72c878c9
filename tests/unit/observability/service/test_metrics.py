"""What Prometheus scrapes: names, labels, values; series end with their job, and with their node."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tests.unit.observability.service.conftest import NOW, Api, Serve, at

JOB = 'job_id="7",node="n1",user="alice"'
NODE = 'node="n1"'
DEVICE = 'gpu_id="0",gpu_vendor="nvidia",job_id="7",node="n1"'
GPU = {
    "gpu_id": "0",
    "gpu_vendor": "nvidia",
    "utilization_percent": 40,
    "memory_used_bytes": 2**30,
    "power_watts": 55.5,
    "temperature_celsius": 61,
}
READ = {
    "job_id": 7,
    "cpu_usage_percent": 49.5,
    "memory_usage_bytes": 200 * 2**20,
    "gpus": [GPU, {**GPU, "gpu_id": "1", "utilization_percent": 60}],
}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        pytest.param("hpc_job_cpu_usage_percent", JOB, 49.5, marks=pytest.mark.row("O-08.2")),
        pytest.param("hpc_job_memory_usage_bytes", JOB, 200 * 2**20, marks=pytest.mark.row("O-08.3")),
        pytest.param("hpc_job_gpu_usage_percent", JOB, 50, marks=pytest.mark.row("O-08.4")),
        pytest.param("hpc_job_gpu_device_utilization_percent", DEVICE, 40, marks=pytest.mark.row("O-08.5")),
        pytest.param("hpc_job_gpu_device_memory_used_bytes", DEVICE, 2**30, marks=pytest.mark.row("O-08.6")),
        pytest.param("hpc_job_gpu_device_power_watts", DEVICE, 55.5, marks=pytest.mark.row("O-08.7")),
        pytest.param("hpc_job_gpu_device_temperature_celsius", DEVICE, 61, marks=pytest.mark.row("O-08.8")),
        pytest.param("hpc_node_cpu_usage_percent", NODE, 12.5, marks=pytest.mark.row("O-08.9")),
        pytest.param("hpc_node_memory_usage_bytes", NODE, 2**34, marks=pytest.mark.row("O-08.10")),
        pytest.param("hpc_node_job_count", NODE, 1, marks=pytest.mark.row("O-08.11")),
    ],
)
def test_value_is_what_the_agent_read(api: Api, name: str, labels: str, value: float) -> None:
    api.started()
    api.sample(READ, cpu_usage_percent=12.5, memory_usage_bytes=2**34)

    families = api.client.get("/metrics", headers=api.headers("reader")).text
    [family] = [one for one in text_string_to_metric_families(families) if one.name == name]
    series = {
        ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items())): sample.value
        for sample in family.samples
    }

    assert (family.type, series[labels]) == ("gauge", value)


@pytest.mark.row("O-08.1")
def test_runtime_counts_from_the_start_without_suspensions(api: Api) -> None:
    api.started(seconds=0)
    api.sample({**READ, "suspended": True}, seconds=10)
    suspended = api.series("hpc_job_runtime_seconds")
    assert api.get("/v1/jobs/7")["state"] == "suspended"
    api.sample(READ, seconds=30)
    resumed = api.series("hpc_job_runtime_seconds")

    assert suspended == {JOB: 10}
    assert resumed[JOB] == pytest.approx((datetime.now(UTC) - NOW).total_seconds() - 20, abs=10), (
        "20 s of them suspended"
    )
    assert api.get("/v1/jobs/7")["state"] == "running"
    changes = api.get("/v1/audit", "admin")["changes"]
    assert [one["action"] for one in changes[:2]] == ["job-resumed", "job-suspended"]


def test_what_could_not_be_read_has_no_series(api: Api) -> None:
    api.started()
    api.sample({"job_id": 7, "gpus": [{"gpu_id": "0", "gpu_vendor": "amd"}]})

    text = api.client.get("/metrics", headers=api.headers("reader")).text
    series = [line for line in text.splitlines() if line.startswith("hpc_job")]
    assert [line.partition("{")[0] for line in series] == ["hpc_job_runtime_seconds"]


@pytest.mark.row("O-08.13")
def test_series_of_a_job_end_with_it(api: Api) -> None:
    api.started()
    api.sample(READ)
    assert api.series("hpc_job_memory_usage_bytes")

    api.finished()

    text = api.client.get("/metrics", headers=api.headers("reader")).text
    assert not [line for line in text.splitlines() if line.startswith("hpc_job")]
    assert api.series("hpc_node_job_count") == {NODE: 1}, "until the next sample"


@pytest.mark.row("O-08.13")
def test_series_end_when_their_node_has_been_silent_for_three_samples(api: Api) -> None:
    api.started()
    api.started(8, node_list=["n2"])
    api.sample({"job_id": 8}, node="n2", interval_seconds=600)
    api.sample(READ, interval_seconds=0.001)
    time.sleep(0.01)  # what is tested is that this time has passed

    assert list(api.series("hpc_job_runtime_seconds")) == ['job_id="8",node="n2",user="alice"']
    assert list(api.series("hpc_node_job_count")) == ['node="n2"']
    assert api.get("/v1/health")["agents"]["silent"] == ["n1"]
    assert [node["silent"] for node in api.get("/v1/nodes")["nodes"]] == [True, False]


def test_job_that_a_sample_has_no_more_keeps_no_value(api: Api) -> None:
    api.started()
    api.sample(READ, seconds=1)
    api.sample(seconds=2)

    assert api.series("hpc_job_memory_usage_bytes") == {}
    assert api.get("/v1/jobs/7")["usage"] is None


def test_multi_node_job_has_a_series_for_each_node(api: Api) -> None:
    api.started(node_list=["n1", "n2"])
    api.sample(READ, node="n1")
    api.sample({"job_id": 7, "memory_usage_bytes": 5}, node="n2")

    assert api.series("hpc_job_memory_usage_bytes") == {
        'job_id="7",node="n1",user="alice"': 200 * 2**20,
        'job_id="7",node="n2",user="alice"': 5,
    }
    assert api.get("/v1/jobs/7")["usage"]["memory_usage_bytes"] == 200 * 2**20 + 5


def test_same_job_id_in_two_clusters_is_no_doubled_series(api: Api) -> None:
    api.started(cluster="east")
    api.started(cluster="west")

    text = api.client.get("/metrics", headers=api.headers("reader")).text
    names = [line.rpartition(" ")[0] for line in text.splitlines() if line.startswith("hpc_job_runtime")]
    assert len(names) == len(set(names)) == 1


def test_sample_that_is_not_newer_changes_nothing(api: Api) -> None:
    api.started()
    api.sample({"job_id": 7, "memory_usage_bytes": 5}, seconds=10)

    assert not api.sample({"job_id": 7, "memory_usage_bytes": 6}, seconds=10)["recorded"]
    assert not api.sample({"job_id": 7, "memory_usage_bytes": 7}, seconds=9)["recorded"]
    assert list(api.series("hpc_job_memory_usage_bytes").values()) == [5]
    assert len(api.get("/v1/jobs/7/metrics")["nodes"][0]["samples"]) == 1


def test_clock_that_was_ahead_and_is_set_silences_no_node(api: Api) -> None:
    api.started()
    assert api.sample({"job_id": 7, "memory_usage_bytes": 5}, seconds=86400)["recorded"]

    assert api.sample({"job_id": 7, "memory_usage_bytes": 6}, seconds=10)["recorded"]
    assert not api.sample({"job_id": 7, "memory_usage_bytes": 7}, seconds=9)["recorded"]
    assert list(api.series("hpc_job_memory_usage_bytes").values()) == [6]


def test_job_that_nobody_announced_is_named_to_the_agent(api: Api) -> None:
    api.started(7)

    assert api.sample({"job_id": 7}, {"job_id": 9}, {"job_id": 8})["unknown_jobs"] == [8, 9]


def test_last_sample_after_the_end_completes_the_totals(api: Api) -> None:
    api.started(node_list=["n1", "n2"])
    api.sample({"job_id": 7, "cpu_seconds": 4, "peak_memory_bytes": 10}, node="n1", seconds=5)
    api.finished(seconds=10, cpu_seconds=5, peak_memory_bytes=11)
    api.sample({"job_id": 7, "cpu_seconds": 6, "peak_memory_bytes": 30}, node="n2", seconds=10.5)

    job = api.get("/v1/jobs/7")
    assert (job["cpu_seconds"], job["peak_memory_bytes"]) == (11, 30), "CPU of both nodes, memory of the larger"
    assert job["state"] == "completed"


def test_peak_is_of_the_samples_where_the_epilog_could_not_read_it(api: Api) -> None:
    api.started()
    for second, memory in enumerate([10, 30, 20], 1):
        api.sample({"job_id": 7, "memory_usage_bytes": memory, "cpu_seconds": second}, seconds=second)
    api.finished(unread=["peak_memory_bytes: the folder had gone"])

    job = api.get("/v1/jobs/7")
    assert (job["peak_memory_bytes"], job["cpu_seconds"]) == (30, 3)
    assert job["unread"] == ["peak_memory_bytes: the folder had gone"]


def test_next_run_does_not_show_the_last_ones_values(api: Api) -> None:
    api.started(seconds=0)
    api.sample(READ, seconds=5)
    api.finished(seconds=6)
    api.started(seconds=30)

    assert api.series("hpc_job_memory_usage_bytes") == {}


def test_metrics_are_open_only_where_that_is_asked_for(serve: Serve) -> None:
    assert serve("closed").client.get("/metrics").status_code == 401
    assert serve("open", OBSERVABILITY_METRICS_OPEN="yes").client.get("/metrics").status_code == 200


def test_labels_are_escaped(api: Api) -> None:
    api.started(user='a"b\\c')

    text = api.client.get("/metrics", headers=api.headers("reader")).text
    [sample] = [
        sample
        for family in text_string_to_metric_families(text)
        if family.name == "hpc_job_runtime_seconds"
        for sample in family.samples
    ]
    assert sample.labels["user"] == 'a"b\\c'


def test_text_is_what_prometheus_client_would_write(api: Api) -> None:
    for job_id, user in ((7, 'a"b\\c'), (8, "bob")):
        api.started(job_id, user=user, node_list=["n1", "n2"])
    api.sample(READ, {"job_id": 8, "cpu_usage_percent": 1e-7, "memory_usage_bytes": 2**60}, memory_usage_bytes=2**62)
    text = api.client.get("/metrics", headers=api.headers("reader")).text

    class Same(Collector):
        def collect(self) -> Iterable[Metric]:
            return text_string_to_metric_families(text)

    registry = CollectorRegistry()
    registry.register(Same())
    theirs = generate_latest(registry).decode()
    assert lines_of(text) == lines_of(theirs)
    assert api.client.get("/metrics", headers=api.headers("reader")).headers["content-type"] == CONTENT_TYPE_PLAIN_0_0_4


def lines_of(text: str) -> list[str]:
    """The lines about jobs and nodes, numbers in one form."""
    found = []
    for line in text.splitlines():
        labels, _, value = line.rpartition(" ")
        if line.startswith("hpc_"):
            found.append(f"{labels} {float(value)}")
        elif line.startswith(("# HELP hpc_", "# TYPE hpc_")):
            found.append(line)
    return found


def test_own_counters_count_reports_once(api: Api) -> None:
    api.started(key="a")
    api.started(key="a", status=200)
    api.sample(READ)

    assert api.series("slurm_observability_events_total") == {'kind="started",source="prolog"': 1}


def test_nodes_show_what_their_agents_read(api: Api) -> None:
    api.started()
    unread = [{"what": "job 9: memory.peak", "why": "the kernel has none"}]
    api.sample(READ, cpu_usage_percent=12.5, memory_usage_bytes=2**34, unread=unread, version="0.1.0")
    api.sample(node="n10")
    api.sample(node="n2")

    nodes = api.get("/v1/nodes")["nodes"]
    assert [node["node"] for node in nodes] == ["n1", "n2", "n10"]
    assert (nodes[0]["cpu_usage_percent"], nodes[0]["jobs"], nodes[0]["unread"]) == (12.5, [7], unread)
    assert nodes[0]["sampled_at"] == at(1).replace("+00:00", "Z")
