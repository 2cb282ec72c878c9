"""A single node from its start to its stop: ready, supervised, stopped in order, and started again on its state."""

from __future__ import annotations

import io
import math
import secrets
import signal
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from docker.models.containers import Container

from slurm_testbed import ClusterKeys
from slurm_testbed.container import ContainerSubstrate
from slurm_testbed.readiness import Timeline, wait_until
from slurm_testbed.slurm import Slurm
from tests.images.conftest import Image, our_labels, wait_ready

DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmrestd")


def container_of(slurm: Slurm) -> Container:
    """The container that carries a cluster."""
    assert isinstance(slurm.substrate, ContainerSubstrate)
    return slurm.substrate.container


def health(container: Container) -> str:
    """What Docker's health check says now."""
    container.reload()
    return str(container.attrs["State"]["Health"]["Status"])


def pid_of(slurm: Slurm, daemon: str) -> int:
    """The process of a daemon, by its supervisor; 0 while it does not run."""
    script = f"s6-svstat -o pid /run/slurm-testbed/services/{daemon}*"
    return max(int(slurm.run(["sh", "-c", script]).stdout.split()[0]), 0)


def accounted(slurm: Slurm, job_id: int) -> str:
    """State of a job in the accounting, once its whole record is there.

    Slurm 22.05 sends every 5 s, and a step's end may come before the job's start: until then `--jobs` shows a job
    without name and partition.
    """

    def over() -> str | None:
        rows = slurm.sacct("--allusers", "--allocations", "--format=JobID,State", "--starttime=now-1hour")
        states = {row["JobID"]: row["State"] for row in rows}
        state = states.get(str(job_id), "PENDING")
        return None if state in {"PENDING", "RUNNING"} else state

    return slurm.wait_until(over, f"job {job_id} in the accounting")


def in_order(text: str, lines: Sequence[str]) -> None:
    """Each line stands in the text, after the one before."""
    at = 0
    for line in lines:
        found = text.find(line, at)
        assert found >= 0, f"{line!r} does not come after the lines before it in {lines}; the log:\n{text[-4000:]}"
        at = found + len(line)


# --- ready -----------------------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.vm
@pytest.mark.row("C-01", "C-06.2", "C-06.4", "C-06.5", "C-17.5")
def test_new_container_is_a_whole_cluster_without_a_job(image: Image) -> None:
    with image.started() as slurm:
        container = container_of(slurm)
        queue, records = slurm.queue(), slurm.sacct("--allusers", "--allocations")
        job = slurm.sbatch(wrap="hostname; id -un")
        record = job.wait()
        wait_until(
            lambda: health(container) == "healthy",
            "the health check to say healthy",
            deadline=30,
            speed=slurm.substrate.facts().speed,
            state=lambda: str(container.attrs["State"]["Health"]["Log"][-1:]),
        )
        log = slurm.substrate.logs(slurm.controller)

        assert (queue, records) == ([], []), "a job was there before the first user's"
        assert job.id == 1
        assert record.state == "COMPLETED"
        assert job.output().split() == [slurm.controller, "alice"]
        assert [node["State"] for node in slurm.nodes().values()] == ["IDLE"], "not one worker that is idle"
        assert all(pid_of(slurm, daemon) for daemon in DAEMONS)
        assert accounted(slurm, 1) == "COMPLETED"
        assert container.attrs["HostConfig"]["Privileged"] is False
        assert not container.attrs["HostConfig"]["CapAdd"]
    in_order(log, [f"{daemon}: starts" for daemon in DAEMONS[1:]])
    in_order(log, ["mariadbd: listening", "slurmdbd: listening", "slurmctld: listening", "ready:"])
    timeline = Timeline.parse(log)
    limits, memory = (
        next(entry.text for entry in timeline.entries if entry.text.startswith(about))
        for about in ("cgroups: ", "accounting: ")
    )
    assert limits.startswith("cgroups: none, jobs run without memory, core and device limits (")
    assert "start with --cap-add SYS_ADMIN" in limits, "the start does not say how to have the limits"
    assert memory == "accounting: sstat and sacct have no MaxRSS of jobs (start with --cap-add SYS_PTRACE)"


def test_slurm_ready_says_what_is_missing(slurm: Slurm) -> None:
    name = slurm.controller
    slurm.substrate.service(name, "slurmrestd", "stop")
    try:
        done = slurm.run(["slurm-ready"], check=False)
    finally:
        slurm.substrate.service(name, "slurmrestd", "start")

    assert done.returncode == 1
    assert done.stdout.strip() == "not ready: slurmrestd does not listen on port 6820"


# --- supervised ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("daemon", DAEMONS)
def test_killed_daemon_comes_back(slurm: Slurm, daemon: str) -> None:
    before = pid_of(slurm, daemon)

    slurm.run(["sh", "-c", f"kill -KILL {before}"])

    slurm.wait_until(lambda: pid_of(slurm, daemon) not in {0, before}, f"a new {daemon}")
    slurm.wait_until(lambda: slurm.run(["slurm-ready"], check=False).returncode == 0, "the cluster to answer again")
    slurm.wait_until(
        lambda: slurm.run(["srun", "hostname"], user="alice", check=False).stdout.strip() == slurm.controller,
        f"a job to run after {daemon} came back",
    )


# --- stopped, and started again --------------------------------------------------------------------------


def file_of_stopped(container: Container, path: str) -> str:
    """A file of a container that has ended."""
    stream, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        member = archive.extractfile(archive.getnames()[0])
        assert member is not None
        return member.read().decode(errors="replace")


def stop(slurm: Slurm) -> tuple[int, str]:
    """`docker stop` with its own 10 s, or as much as that is here; exit status, and the container's log."""
    container = container_of(slurm)
    container.stop(timeout=math.ceil(10 * slurm.substrate.facts().speed))
    container.reload()
    return int(container.attrs["State"]["ExitCode"]), slurm.substrate.logs(slurm.controller)


@pytest.mark.vm
def test_stop_ends_in_order_also_under_a_running_job(image: Image) -> None:
    with image.started() as slurm:
        slurm.sbatch(wrap="sleep 600").wait(until={"RUNNING"})

        status, log = stop(slurm)

        database = file_of_stopped(container_of(slurm), "/var/log/slurm/mariadbd.log")
        controller = file_of_stopped(container_of(slurm), "/var/log/slurm/slurmctld.log")
    assert status == 0, f"exit status {status}; 137 is Docker's kill after 10 s"
    # Daemons before 26.05 put their name before each line; slurmctld's own signal comes before it saves.
    in_order(
        log, ["Slurmd shutdown completing", "Saving all slurm state", "Terminate signal", "munged: Notice: Stopping"]
    )
    in_order(controller, ["Terminate signal", "Saving all slurm state"])
    in_order(database, ["Normal shutdown", "mariadbd: Shutdown complete"])


def test_stop_during_the_start_is_clean(image: Image) -> None:
    with image.started(ready=False) as slurm:
        slurm.wait_until(lambda: "mariadbd: starts" in slurm.substrate.logs(slurm.controller), "the start to begin")
        status, log = stop(slurm)

    assert status == 0, f"exit status {status}; 137 is Docker's kill after 10 s; the log:\n{log}"


@pytest.fixture
def volumes(image: Image) -> Iterator[list[str]]:
    """Options of docker run that keep the state on new volumes."""
    name = f"slurm-state-{secrets.token_hex(4)}"
    places = {f"{name}-spool": "/var/spool/slurmctld", f"{name}-mysql": "/var/lib/mysql"}
    made = [image.client.volumes.create(volume, labels=our_labels(name)) for volume in places]
    yield [f"--volume={volume}:{place}" for volume, place in places.items()]
    for volume in made:
        volume.remove(force=True)


def test_state_survives_a_restart_and_a_new_container(
    image: Image, volumes: list[str], slurm_keys: ClusterKeys, tmp_path: Path
) -> None:
    keys = {"munge.key": slurm_keys.munge, "jwt_hs256.key": slurm_keys.jwt}
    mounts = [f"--volume={key.write(tmp_path / name)}:/run/secrets/{name}:ro" for name, key in keys.items()]
    # The last --hostname counts: the controller keeps its name.
    options = [*volumes, *mounts, "--hostname=controller"]

    with image.started(options=options) as first:
        assert first.sbatch(wrap="true").wait().id == 1
        assert accounted(first, 1) == "COMPLETED"
        token = first.token("alice")
        assert stop(first)[0] == 0
        container_of(first).start()
        wait_ready(first)
        second_job = first.sbatch(wrap="true")
        assert second_job.wait().state == "COMPLETED"
        assert accounted(first, 2) == "COMPLETED"
        assert stop(first)[0] == 0
    with image.started(options=options) as second:
        third_job = second.sbatch(wrap="true")
        third_job.wait()
        kept = [accounted(second, job_id) for job_id in (1, 2)]
        fingerprints = second.substrate.logs(second.controller)
        mine = second.run(["scontrol", "ping"], env={"SLURM_JWT": token}, user="alice").stdout

    assert second_job.id == 2, "job ids do not go on after a restart"
    assert third_job.id == 3, "job ids do not go on in a new container on the same volumes"
    assert kept == ["COMPLETED", "COMPLETED"], "the accounting of the first container's jobs is lost"
    assert slurm_keys.munge.fingerprint in fingerprints
    assert "is UP" in mine


def test_keys_are_kept_when_the_container_is_started_again(image: Image) -> None:
    with image.started(options=["--env=SLURM_ACCOUNTING=no"]) as slurm:
        keys = ["sha256sum", "/etc/munge/munge.key", "/etc/slurm/jwt_hs256.key"]
        before = slurm.run(keys).stdout
        container_of(slurm).restart()
        wait_ready(slurm)

        assert slurm.run(keys).stdout == before


# --- a command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("echo begun; exec sleep 600", 143, ""),
        ("trap 'sinfo --noheader --format=%T; exit 7' TERM; echo begun; sleep 600 & wait", 7, "idle"),
    ],
    ids=["ends by it", "uses its cluster once more"],
)
def test_command_is_told_that_its_container_is_stopped(image: Image, script: str, status: int, said: str) -> None:
    options = ["--env=SLURM_ACCOUNTING=no"]
    with image.started("sh", "-c", script, options=options, ready=False) as slurm:
        container = container_of(slurm)
        wait_until(lambda: b"begun" in container.logs(), "the command", deadline=60)

        container.stop(timeout=60)

        assert container.wait()["StatusCode"] == status
        assert container.logs(stderr=False).decode().split() == ["begun", *said.split()]


def test_command_hears_the_keyboard(image: Image) -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that the command starts."""
    done = image.run("grep", "SigIgn", "/proc/self/status", options=["--env=SLURM_ACCOUNTING=no"])

    ignored = int(done.stdout.split()[1], 16)
    assert [number for number in (signal.SIGINT, signal.SIGQUIT) if ignored >> (number - 1) & 1] == []


def test_ctrl_c_ends_the_command_with_its_own_status(image: Image) -> None:
    script = "trap 'sinfo --noheader --format=%T; exit 5' INT; echo begun; sleep 600 & wait"
    with image.started("sh", "-c", script, options=["--env=SLURM_ACCOUNTING=no"], ready=False) as slurm:
        container = container_of(slurm)
        wait_until(lambda: b"begun" in container.logs(), "the command", deadline=60)

        container.kill("SIGINT")

        assert container.wait(timeout=60)["StatusCode"] == 5
        assert container.logs(stderr=False).decode().split() == ["begun", "idle"]


def test_state_is_kept_in_a_folder_of_somebody_else(image: Image, tmp_path: Path) -> None:
    options = [f"--volume={tmp_path}/new:/var/spool/slurmctld", "--env=SLURM_ACCOUNTING=no"]

    with image.started(options=options) as slurm:
        assert slurm.sbatch(wrap="true").wait().state == "COMPLETED"
        assert slurm.run(["stat", "--format=%U", "/var/spool/slurmctld"]).stdout == "slurm\n"
