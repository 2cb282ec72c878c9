"""Generic resources on stand-in devices: counted, given to one job at a time, and closed to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from slurm_testbed import SlurmCluster, SlurmContainer
from slurm_testbed.errors import EngineError, NotReadyError
from slurm_testbed.slurm import Slurm

GPUS = {"SLURM_NODE_GRES": "gpu:tesla:2"}
#: Tries every stand-in, and prints those that can be opened.
OPEN = 'for gpu in /dev/slurm-testbed/gpu*; do (exec 3< $gpu) 2> /dev/null && echo "${gpu##*/}"; done; true'


@pytest.fixture(scope="module")
def _gpus(slurm_start: Callable[..., SlurmContainer | SlurmCluster]) -> Iterator[Slurm]:
    with slurm_start(nodes=1, cpus=4, memory=4000, env=GPUS) as cluster:
        yield cluster


@pytest.fixture
def gpus(_gpus: Slurm) -> Slurm:
    """An idle cluster of one node with two stand-in GPUs."""
    _gpus.reset()
    return _gpus


@pytest.fixture(scope="module")
def _enforced_gpus(slurm_start: Callable[..., SlurmContainer | SlurmCluster]) -> Iterator[Slurm]:
    with slurm_start(nodes=1, cpus=4, memory=4000, cgroups=True, env=GPUS) as cluster:
        yield cluster


@pytest.fixture
def enforced_gpus(_enforced_gpus: Slurm) -> Slurm:
    """The same, with jobs held in cgroups."""
    _enforced_gpus.reset()
    return _enforced_gpus


@pytest.mark.row("H-16.1", "O-13.3")
def test_nodes_have_the_gpus_that_were_asked_for(gpus: Slurm) -> None:
    assert gpus.run(["sinfo", "--noheader", "--format=%G"]).stdout == "gpu:tesla:2\n"
    assert gpus.srun("printenv", "CUDA_VISIBLE_DEVICES", gres="gpu:tesla:2") == "0,1\n"
    assert gpus.srun("sh", "-c", "echo ${CUDA_VISIBLE_DEVICES-none}") == "none\n"


@pytest.mark.row("O-13.4")
def test_stand_ins_are_marked_as_such(gpus: Slurm) -> None:
    conf = gpus.read("/etc/slurm/gres.conf", host=gpus.host_of_node("n1"))

    assert "# Stand-ins: device nodes with nothing of the kind behind them." in conf
    assert "Name=gpu Type=tesla File=/dev/slurm-testbed/gpu[0-1]" in conf
    assert "on stand-in devices in /dev/slurm-testbed" in gpus.substrate.logs(gpus.host_of_node("n1"))


def test_two_jobs_do_not_share_a_gpu(gpus: Slurm) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES; sleep 30"
    first, second = (gpus.sbatch(wrap=script, gres="gpu:1", ntasks=1) for _ in range(2))
    for job in (first, second):
        job.wait(until={"RUNNING"})
    third = gpus.sbatch(wrap="true", gres="gpu:1", ntasks=1)
    gpus.wait_until(lambda: third.record().reason in {"Resources", "Priority"}, "the third job to be looked at")

    used = gpus.wait_until(
        lambda: sorted((first.output() + second.output()).split())[:2] or None, "the jobs to write", deadline=10
    )
    first.cancel()

    assert used == ["0", "1"]
    assert third.wait().state == "COMPLETED"


def test_used_gpus_are_accounted(gpus: Slurm) -> None:
    job = gpus.sbatch(wrap="true", gres="gpu:tesla:2")
    job.wait()

    def used() -> str:
        rows = gpus.sacct("--allocations", f"--jobs={job.id}", "--format=AllocTRES")
        return rows[0]["AllocTRES"] if rows else ""

    assert "gres/gpu=2" in gpus.wait_until(used, "the job in the accounting", deadline=20)


@pytest.mark.row("O-13.5", "O-13.6")
def test_job_opens_the_gpus_that_it_was_given_and_no_other(enforced_gpus: Slurm) -> None:
    assert enforced_gpus.srun("bash", "-c", OPEN) == "", "a device can be opened without --gres"
    assert enforced_gpus.srun("bash", "-c", OPEN, gres="gpu:2").split() == ["gpu0", "gpu1"]

    holder = enforced_gpus.sbatch(wrap=f"{OPEN}; sleep 30", gres="gpu:1", ntasks=1)
    holder.wait(until={"RUNNING"})
    other = enforced_gpus.srun("bash", "-c", OPEN, gres="gpu:1").split()
    held = enforced_gpus.wait_until(lambda: holder.output().split(), "the job to write", deadline=10)

    assert (len(held), len(other)) == (1, 1), f"one job opens {held}, the other {other}"
    assert held != other


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("gpu", "SLURM_NODE_GRES: gpu is not NAME:COUNT"),
        ("gpu:tesla:0", "SLURM_NODE_GRES: gpu:tesla:0 is not NAME:COUNT"),
    ],
)
def test_wrong_setting_is_told_in_a_sentence(asked: str, said: str) -> None:
    with pytest.raises((EngineError, NotReadyError), match=said), SlurmContainer(env={"SLURM_NODE_GRES": asked}):
        pass


def test_more_stand_ins_than_jobs_can_be_kept_from_are_refused() -> None:
    wanted = SlurmContainer(cgroups=True, env={"SLURM_NODE_GRES": "gpu:3"})

    with pytest.raises(EngineError, match="there are 2 stand-in devices, no more"), wanted:
        pass
