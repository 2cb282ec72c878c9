"""The agent as a process: from what the scripts leave to what the service has, also when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_observability.node.agent import Agent, Settings
from slurm_observability.node.spool import RunningJob, Spool

from slurm_testbed import data
from slurm_testbed.readiness import wait_until
from tests.unit.observability.node.conftest import PROLOG, FakeService, Request, Tree, leave, run_script

ALONE = PROLOG | {"SLURM_JOB_NODELIST": "n1", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_CPUS_PER_NODE": "2"}
ENDED = {"SLURM_SCRIPT_CONTEXT": "epilog_slurmd", "SLURM_JOB_EXIT_CODE2": "0:0"}
START = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path, tree: Tree, spool: Spool, service: FakeService) -> Iterator[START]:
    """Starts the agent, and ends it with the test."""
    (tmp_path / "cgroup.conf").write_text("ConstrainRAMSpace=yes\n")
    for controller in ("memory", "cpuacct"):
        (tree.root / controller / "slurm_n1").mkdir(parents=True)
    package = data.images() / "observability/slurm-observability"
    argv = [sys.executable, "-c", "from slurm_observability.cli import main; main()", "agent"]
    argv += ["--url", service.url, "--spool", str(spool.root), "--cgroup-root", str(tree.root), "--node", "n1"]
    argv += ["--slurm-conf", str(tmp_path / "slurm.conf")]
    env = {**os.environ, "PYTHONPATH": str(package)}
    agents: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "agent.log"

    def begin() -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            agents.append(subprocess.Popen(argv, env=env, stderr=file))
        return agents[-1]

    yield begin
    for agent in agents:
        if agent.poll() is None:
            agent.kill()
        agent.wait()
    print(log.read_text() if log.exists() else "the agent was not started")  # noqa: T201  # pytest shows it on failure


def soon(what: str, condition: Callable[[], Any]) -> None:
    wait_until(condition, what, deadline=30)


def body(service: FakeService, event: str, job_id: int = 12) -> Any:
    """The body of an event that the service has."""
    [found] = [r.body for r in service.stored.values() if r.path.endswith(event) and r.body["job_id"] == job_id]
    return found


def held(tree: Tree, path: str) -> bool:
    return all(
        (tree.root / controller / path.lstrip("/") / "observability").is_dir() for controller in ("memory", "cpuacct")
    )


def test_job_is_told_from_its_start_to_its_end(start: START, tree: Tree, spool: Spool, service: FakeService) -> None:
    start()
    run_script(spool, "prolog.d/50-observability.sh", **ALONE)
    path = tree.job_v1(12, cpu_ns=0)
    soon("the start", lambda: ("job-started", 12) in service.events())
    soon("the folder to be held", lambda: held(tree, path))
    # The kernel counts on until the end, and Slurm removes what it may.
    tree.job_v1(12, cpu_ns=2_500_000_000, peak=5000)
    tree.job_goes(path)
    run_script(spool, "epilog.d/50-observability.sh", **ALONE | ENDED)
    soon("the end", lambda: ("job-finished", 12) in service.events())
    soon("the folder to be let go", lambda: not held(tree, path))

    begun, ended = body(service, "job-started"), body(service, "job-finished")
    assert (begun["user"], begun["node_list"], begun["cpu_allocation"]) == ("alice", ["n1"], 2)
    assert (ended["final_state"], ended["exit_code"], ended["signal"]) == ("completed", 0, 0)
    assert (ended["cpu_seconds"], ended["peak_memory_bytes"], ended["unread"]) == (2.5, 5000, [])
    soon("the spool to be empty", lambda: not any(p.is_file() for p in spool.root.rglob("*")))


def test_start_waits_for_the_folder_that_comes_after_the_prolog(
    start: START, tree: Tree, spool: Spool, service: FakeService
) -> None:
    start()
    # A record of the future leaves the test all the time that it needs.
    leave(spool, written_ns=time.time_ns() + 60 * 10**9, **ALONE)
    soon("the prolog to be seen", lambda: list(spool.running.glob("*.json")))
    path = tree.job_v1(12)
    soon("the start", lambda: service.events())

    begun = body(service, "job-started")
    assert (begun["cgroup_path"], begun["memory_allocation_mb"], begun["unread"]) == (path, 200, [])


def test_start_does_not_wait_for_ever(start: START, spool: Spool, service: FakeService) -> None:
    start()
    run_script(spool, "prolog.d/50-observability.sh", **ALONE)
    soon("the start", lambda: service.events())

    begun = body(service, "job-started")
    assert (begun["cgroup_path"], begun["memory_allocation_mb"]) == (None, None)
    assert any(note.startswith("cgroup_path: ") for note in begun["unread"])


def test_job_of_several_hosts_is_told_by_the_first_alone(start: START, spool: Spool, service: FakeService) -> None:
    start()
    for node in ("n2", "n1"):
        run_script(spool, "prolog.d/50-observability.sh", **PROLOG | {"SLURMD_NODENAME": node})
    for node in ("n2", "n1"):
        run_script(spool, "epilog.d/50-observability.sh", **PROLOG | ENDED | {"SLURMD_NODENAME": node})
    soon("the end", lambda: ("job-finished", 12) in service.events())
    soon("the spool to be empty", lambda: not any(p.is_file() for p in spool.root.rglob("*")))

    assert service.events() == [("job-started", 12), ("job-finished", 12)]
    assert all(key.startswith("n1-") for key in service.stored)


def test_cluster_is_known_when_slurm_conf_comes_later(tree: Tree, spool: Spool, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    agent = Agent(Settings("http://127.0.0.1:1", spool.root, cgroup_root=tree.root, slurm_conf=conf))
    before = [sample.cluster for sample in agent.sampler.sample()]

    conf.write_text("ClusterName=testbed\n")

    assert (before, [sample.cluster for sample in agent.sampler.sample()]) == ([""], ["testbed"])


def test_slurmctlds_scripts_are_events_of_their_own(start: START, spool: Spool, service: FakeService) -> None:
    ctld = {**ALONE, "SLURMD_NODENAME": "", "SLURM_JOB_NAME": "sweep"}
    start()
    run_script(spool, "prolog.slurmctld.sh", **ctld | {"SLURM_SCRIPT_CONTEXT": "prolog_slurmctld"})
    run_script(spool, "epilog.slurmctld.sh", **ctld | ENDED | {"SLURM_SCRIPT_CONTEXT": "epilog_slurmctld"})
    soon("both", lambda: len(service.events()) == 2)

    assert (body(service, "job-started")["source"], body(service, "job-started")["name"]) == (
        "prologslurmctld",
        "sweep",
    )
    assert body(service, "job-finished")["source"] == "epilogslurmctld"
    soon("the spool to be empty", lambda: not any(p.is_file() for p in spool.root.rglob("*")))


def test_requeued_run_ends_as_that_run(start: START, spool: Spool, service: FakeService) -> None:
    ctld = {**ALONE, "SLURMD_NODENAME": ""}
    start()
    run_script(spool, "prolog.slurmctld.sh", **ctld | {"SLURM_SCRIPT_CONTEXT": "prolog_slurmctld"})
    run_script(spool, "prolog.d/50-observability.sh", **ALONE)
    soon("both starts", lambda: len(service.events()) == 2)
    again = ENDED | {"SLURM_JOB_RESTART_COUNT": "1"}
    run_script(spool, "epilog.slurmctld.sh", **ctld | again | {"SLURM_SCRIPT_CONTEXT": "epilog_slurmctld"})
    run_script(spool, "epilog.d/50-observability.sh", **ALONE | again)
    soon("both ends", lambda: len(service.events()) == 4)

    ends = [r.body for r in service.stored.values() if r.path.endswith("job-finished")]
    assert [(end["final_state"], end["restarts"]) for end in ends] == [("requeued", 0)] * 2


def test_agent_that_is_killed_goes_on_where_it_was(
    start: START, tree: Tree, spool: Spool, service: FakeService
) -> None:
    agent = start()
    path = tree.job_v1(12)
    run_script(spool, "prolog.d/50-observability.sh", **ALONE)
    soon("the start", lambda: service.events())
    soon("the folder to be held", lambda: held(tree, path))
    agent.send_signal(signal.SIGKILL)
    agent.wait()

    # The job ends while nobody is there; its folder waits.
    tree.job_goes(path)
    run_script(spool, "epilog.d/50-observability.sh", **ALONE | ENDED)
    start()
    soon("the end", lambda: ("job-finished", 12) in service.events())

    ended = body(service, "job-finished")
    assert (ended["cpu_seconds"], ended["peak_memory_bytes"]) == (1.5, 3000)


def test_agent_that_is_killed_while_it_sends_sends_again_the_same(
    start: START, spool: Spool, service: FakeService
) -> None:
    agents: list[subprocess.Popen[bytes]] = []

    def answer(request: Request) -> Any:
        reply = service.take(request)
        if request.key and len(agents) == 1:
            # Stored, but the agent does not live to hear of it.
            agents[0].kill()
            agents[0].wait()
            return None
        return reply

    service.answer = answer
    agents.append(start())
    run_script(spool, "prolog.d/50-observability.sh", **ALONE)
    agents[0].wait(timeout=30)
    agents.append(start())
    soon("the spool to be empty", lambda: not list(spool.ready.iterdir()))

    assert service.events() == [("job-started", 12)]
    keys = [request.key for request in service.requests if request.key]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_two_runs_while_the_agent_was_away_do_not_share_values(
    start: START, tree: Tree, spool: Spool, service: FakeService
) -> None:
    path = tree.job_v1(12, steps=())
    (tree.root / f"memory{path}/observability").mkdir()
    spool.save_running(RunningJob(node="n1", job_id=12, begun_ns=time.time_ns()))
    for at, (source, restarts) in enumerate([("prolog", 0), ("epilog", 0), ("prolog", 1), ("epilog", 1)]):
        written = time.time_ns() + at * 10**6
        leave(spool, source, written_ns=written, **ALONE | ENDED | {"SLURM_JOB_RESTART_COUNT": str(restarts)})
    start()
    soon("four events", lambda: len(service.events()) == 4)

    ends = [r.body for r in service.stored.values() if r.path.endswith("job-finished")]
    assert [end["restarts"] for end in ends] == [0, 1]
    assert [end["cpu_seconds"] for end in ends if end["restarts"] == 0] == [None]
    assert "next run" in ends[0]["unread"][0]


def test_folder_that_went_too_early_gives_no_values(
    start: START, tree: Tree, spool: Spool, service: FakeService
) -> None:
    start()
    run_script(spool, "prolog.d/50-observability.sh", **ALONE)
    soon("the start", lambda: service.events())
    run_script(spool, "epilog.d/50-observability.sh", **ALONE | ENDED)
    soon("the end", lambda: ("job-finished", 12) in service.events())

    ended = body(service, "job-finished")
    assert (ended["cpu_seconds"], ended["peak_memory_bytes"]) == (None, None)
    assert ended["unread"][0].startswith("cpu_seconds, peak_memory_bytes: the job's folder")


def test_record_of_which_no_event_can_be_made_is_put_aside(start: START, spool: Spool, service: FakeService) -> None:
    start()
    run_script(spool, "prolog.d/50-observability.sh", **ALONE | {"SLURM_JOB_NODELIST": "n[1-"})
    run_script(spool, "prolog.d/50-observability.sh", **ALONE | {"SLURM_JOB_ID": "13"})
    soon("the other", lambda: service.events())
    soon("the first put aside", lambda: spool.refusals() == 1)

    assert service.events() == [("job-started", 13)]
    [answer] = spool.refused.glob("*.answer")
    assert "n[1-" in answer.read_text()


def test_agent_ends_well_when_it_is_asked_to(start: START, service: FakeService) -> None:
    agent = start()
    soon("a first sample", lambda: service.requests)
    agent.terminate()

    assert agent.wait(timeout=30) == 0
