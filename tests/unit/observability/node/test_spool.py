"""What survives on the node's disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

from slurm_observability.node.events import finished, started
from slurm_observability.node.spool import RunningJob, Spool, boot_ns

from tests.unit.observability.node.conftest import PROLOG, leave, run_script


def test_records_come_oldest_first(spool: Spool) -> None:
    leave(spool, "epilog", written_ns=3 * 10**9)
    leave(spool, "prolog", written_ns=1 * 10**9)
    leave(spool, "prolog", written_ns=2 * 10**9, SLURM_JOB_ID="9")

    assert [(r.source.value, r.job_id) for r in spool.records()] == [("prolog", 12), ("prolog", 9), ("epilog", 12)]


def test_records_of_one_tick_come_in_the_order_of_their_scripts(spool: Spool) -> None:
    # The kernel stamps files by its ticks, of some milliseconds, and "epilog" is before "prolog" by name.
    for script in ("prolog.d", "epilog.d", "prolog.d"):
        run_script(spool, f"{script}/50-observability.sh", **PROLOG | {"SLURM_SCRIPT_CONTEXT": ""})
    for path in spool.new.iterdir():
        os.utime(path, ns=(10**18, 10**18))

    assert [record.is_start for record in spool.records()] == [True, False, True]


def test_cut_off_record_is_left_while_it_may_be_written_and_put_aside_later(spool: Spool) -> None:
    path = leave(spool)
    path.write_bytes(path.read_bytes()[:-6])
    assert list(spool.records()) == []
    assert path.exists()

    old = time.time() - 60
    os.utime(path, (old, old))
    assert list(spool.records()) == []
    assert not path.exists()
    assert spool.refusals() == 1
    assert "disk full" in (spool.refused / f"{path.name}.answer").read_text()


def test_event_takes_the_place_of_its_record(spool: Spool) -> None:
    leave(spool)
    [record] = spool.records()

    spool.put(record, "n1", started(record))

    assert list(spool.records()) == []
    [ready] = spool.waiting()
    assert (ready.key, ready.endpoint, ready.body["user"]) == (record.key("n1"), "/v1/events/job-started", "alice")


def test_same_record_again_is_the_same_event(spool: Spool) -> None:
    path = leave(spool)
    [record] = spool.records()
    content, written = path.read_bytes(), path.stat().st_mtime_ns

    # As when the agent dies between the two.
    for _ in range(2):
        path.write_bytes(content)
        os.utime(path, ns=(written, written))
        [again] = spool.records()
        spool.put(again, "n1", started(again))

    assert [ready.key for ready in spool.waiting()] == [record.key("n1")]


def test_start_is_sent_before_the_end_of_the_same_moment(spool: Spool) -> None:
    leave(spool, "epilog", written_ns=10**18, SLURM_JOB_EXIT_CODE2="0:0")
    leave(spool, "prolog", written_ns=10**18)
    for record in list(spool.records()):
        spool.put(record, "n1", started(record) if record.is_start else finished(record))

    assert [ready.endpoint for ready in spool.waiting()] == ["/v1/events/job-started", "/v1/events/job-finished"]


def test_broken_event_is_put_aside(spool: Spool) -> None:
    (spool.ready / "1.json").write_text("{")

    assert list(spool.waiting()) == []
    assert spool.refusals() == 1


def test_event_that_is_being_written_is_not_seen(spool: Spool) -> None:
    (spool.ready / ".1.json").write_text("{")

    assert (list(spool.waiting()), spool.refusals()) == ([], 0)


def test_running_jobs_survive_the_agent_but_not_the_boot(spool: Spool) -> None:
    before, now = (RunningJob(node="n1", job_id=job, begun_ns=begun) for job, begun in ((1, 10), (2, 30)))
    spool.save_running(before)
    spool.save_running(now)
    (spool.running / "n1.3.json").write_text("{")

    assert spool.load_running(since_ns=20) == [now]
    assert [path.name for path in spool.running.iterdir()] == ["n1.2.json"]
    spool.forget_running("n1", 2)
    assert spool.load_running(since_ns=20) == []


def test_boot_was_before_now() -> None:
    assert 0 < boot_ns() < time.time_ns()


def test_spool_is_not_for_everybody(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "new-spool")
    spool.prepare()
    spool.prepare()

    assert [folder.stat().st_mode & 0o007 for folder in (spool.new, spool.ready, spool.running, spool.refused)] == [
        0
    ] * 4
