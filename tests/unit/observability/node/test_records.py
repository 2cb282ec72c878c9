"""Records, and the events that they stand for."""

from __future__ import annotations

import pytest
from slurm_observability.node.cgroups import Reading
from slurm_observability.node.events import finished, started
from slurm_observability.node.records import Record, RecordError, expand, expand_counts

from tests.unit.observability.node.conftest import record

READING = Reading(
    read_at=1.0,
    cpu_seconds=2.5,
    memory_bytes=100,
    peak_memory_bytes=300,
    memory_limit_bytes=None,
    cpus=None,
    suspended=False,
    steps=(),
    unread=("x: no",),
)


@pytest.mark.parametrize("cut", [b"", b"KIND=prolog\0SLURM_JOB_ID=12", b"KIND=prolog\0SLURM_JOB_ID=12\0"])
def test_half_a_record_is_none(cut: bytes) -> None:
    with pytest.raises(RecordError, match="cut off"):
        Record.parse("12.prolog.1.2", cut, written_ns=0)


def test_key_is_another_where_a_process_id_comes_again() -> None:
    keys = {record(written_ns=written).key("n1") for written in (10**18, 10**18 + 1)}

    assert keys == {"n1-12.prolog.1.00.1-1000000000000000000", "n1-12.prolog.1.00.1-1000000000000000001"}


@pytest.mark.parametrize(
    "text", ["SLURM_JOB_ID=12", "KIND=prolog", "KIND=other\0SLURM_JOB_ID=12", "KIND=prolog\0SLURM_JOB_ID=x"]
)
def test_what_is_no_record_says_so(text: str) -> None:
    with pytest.raises(RecordError, match="no record"):
        Record.parse("x", f"{text}\0END=1\0".encode(), written_ns=0)


@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("gpu[07-09],cpu1", ["gpu07", "gpu08", "gpu09", "cpu1"]),
        ("r[1-2]n[01-02]", ["r1n01", "r1n02", "r2n01", "r2n02"]),
    ],
)
def test_list_of_nodes_is_expanded_in_its_order(short: str, names: list[str]) -> None:
    assert expand(short) == names


def test_list_of_nodes_that_is_none_says_so() -> None:
    with pytest.raises(RecordError, match=r"n\[1-"):
        expand("n[1-")


@pytest.mark.parametrize(("short", "counts"), [("", []), ("4", [4]), ("2(x3),1", [2, 2, 2, 1]), ("two", [])])
def test_counts_are_expanded(short: str, counts: list[int]) -> None:
    assert expand_counts(short) == counts


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({"SLURMD_NODENAME": "n1"}, True),
        ({"SLURMD_NODENAME": "n2"}, False),
        ({"SLURMD_NODENAME": "n2", "SLURM_JOB_NODELIST": "", "SLURM_NODELIST": "n[2-3]"}, True),
        ({"SLURMD_NODENAME": ""}, True),
        ({"SLURMD_NODENAME": "", "SLURM_NODEID": "0"}, True),
        ({"SLURMD_NODENAME": "", "SLURM_NODEID": "1"}, False),
        ({"source": "prologslurmctld", "SLURMD_NODENAME": ""}, True),
    ],
)
def test_first_host_speaks_for_the_job(variables: dict[str, str], first: bool) -> None:
    assert record(**variables).is_first_host is first


def test_start_says_what_slurm_said() -> None:
    event = started(record(SLURM_JOB_CPUS_PER_NODE="2,4"), cgroup_path="/slurm_n1/uid_1000/job_12")

    assert (event.job_id, event.user, event.account, event.partition) == (12, "alice", "physics", "batch")
    assert (event.node_list, event.cpu_allocation, event.restarts) == (["n1", "n2"], 6, 0)
    assert (event.cluster, event.source, event.cgroup_path) == ("testbed", "prolog", "/slurm_n1/uid_1000/job_12")
    assert event.timestamp.timestamp() == 10**9


def test_start_does_not_guess_what_other_nodes_have() -> None:
    event = started(record(SLURM_JOB_GPUS="0,1"), memory_limit_bytes=200 * 2**20, gpu_vendor="nvidia")

    assert (event.memory_allocation_mb, event.gpu_allocation) == (None, None)
    assert (event.gpu_devices, event.gpu_vendor) == (["0", "1"], "nvidia")


def test_start_on_one_node_has_all_of_it() -> None:
    alone = record(SLURM_JOB_NODELIST="n1", SLURM_JOB_GPUS="1")
    event = started(alone, memory_limit_bytes=200 * 2**20, gpu_vendor="amd")

    assert (event.memory_allocation_mb, event.gpu_allocation, event.gpu_devices) == (200, 1, ["1"])


def test_start_of_a_job_without_gpus_has_no_vendor() -> None:
    event = started(record(SLURM_JOB_NODELIST="n1"), gpu_vendor="nvidia")

    assert (event.gpu_allocation, event.gpu_vendor, event.gpu_devices) == (0, None, [])


def test_start_of_an_arrays_task_and_of_a_heterogeneous_part() -> None:
    by_slurmctld = {"source": "prologslurmctld", "SLURMD_NODENAME": "", "SLURM_JOB_NAME": "sweep"}
    task = started(record(**by_slurmctld, SLURM_ARRAY_JOB_ID="10", SLURM_ARRAY_TASK_ID="0"))
    part = started(record(SLURM_HET_JOB_ID="11"))
    neither = started(record(SLURM_HET_JOB_ID="0"))

    assert (task.array_job_id, task.array_task_id, task.name, task.source) == (10, 0, "sweep", "prologslurmctld")
    assert (part.het_job_id, neither.het_job_id) == (11, None)


@pytest.mark.parametrize(
    ("variables", "end"),
    [
        ({"SLURM_JOB_EXIT_CODE2": "0:0"}, ("completed", 0, 0)),
        ({"SLURM_JOB_EXIT_CODE2": "42:0", "SLURM_JOB_EXIT_CODE": "10752"}, ("failed", 42, 0)),
        ({"SLURM_JOB_EXIT_CODE2": "0:9"}, ("failed", 0, 9)),
        ({"SLURM_JOB_EXIT_CODE": "0"}, ("completed", 0, 0)),
        ({"SLURM_JOB_EXIT_CODE": "256"}, ("failed", 1, 0)),
        ({"SLURM_JOB_EXIT_CODE": "15"}, ("failed", 0, 15)),
    ],
)
def test_end_says_exit_code_and_signal(variables: dict[str, str], end: tuple[str, int, int]) -> None:
    event = finished(record("epilog", **variables))

    assert (event.final_state, event.exit_code, event.signal) == end


def test_end_without_an_exit_status_says_so() -> None:
    event = finished(record("epilog"))

    assert (event.exit_code, event.signal) == (None, None)
    assert any(note.startswith("final_state: ") for note in event.unread)


def test_end_has_the_kernels_last_word_and_whose_it_is() -> None:
    event = finished(record("epilog", SLURM_JOB_EXIT_CODE2="0:0"), READING)

    assert (event.cpu_seconds, event.peak_memory_bytes) == (2.5, 300)
    assert event.unread == ["x: no", "cpu_seconds and peak_memory_bytes are those of n1, one of 2 nodes"]


@pytest.mark.parametrize(
    ("of_prolog", "of_epilog", "state"),
    [
        (0, "1", "requeued"),
        (1, "2", "requeued"),
        (0, "0", "completed"),
        (1, "1", "completed"),
        (None, "1", "completed"),
    ],
)
def test_end_of_a_run_that_is_requeued_is_of_that_run(of_prolog: int | None, of_epilog: str, state: str) -> None:
    event = finished(
        record("epilog", SLURM_JOB_EXIT_CODE2="0:0", SLURM_JOB_RESTART_COUNT=of_epilog), restarts=of_prolog
    )

    assert (event.restarts, event.final_state) == (of_prolog, state)


def test_end_without_a_reading_has_the_reason() -> None:
    event = finished(record("epilog", SLURM_JOB_EXIT_CODE2="0:0"), unread=["it was gone"])

    assert (event.cpu_seconds, event.peak_memory_bytes, event.unread) == (None, None, ["it was gone"])


def test_cpus_on_this_node_are_its_own() -> None:
    assert record(SLURMD_NODENAME="n2", SLURM_JOB_CPUS_PER_NODE="2,4").cpus_here == 4
    assert record(SLURM_JOB_CPUS_PER_NODE="").cpus_here is None
