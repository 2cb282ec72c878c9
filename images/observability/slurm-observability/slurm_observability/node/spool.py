"""The folder on the node that keeps what happened until the service has it: it survives the agent, and the node.

new/       records, written by Slurm's prologs and epilogs
running/   the jobs whose prolog ran here and whose epilog has not yet
ready/     events as they are sent, in the order of their names
refused/   events that the service will never take, each with its answer
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from slurm_observability.node.records import Record, RecordError
from slurm_observability.schema import JobFinished, JobStarted

#: The writer of a record may still be at it.
_CUT_OFF_AFTER = 5.0


#: In place of a node's name: what slurmctld's prolog said of a job.
SLURMCTLD: Final = "@slurmctld"


class RunningJob(BaseModel):
    """What the prolog said of a job that runs on a node, and what we know of its folder.

    Attributes:
        restarts: how often the job had been requeued before.
        cpus: the job's CPUs on this node.
        gpus: its GPUs on this node, as gres.conf counts them.
        incomplete: why the kernel's counters do not tell of the whole job; None where they do.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    node: str
    job_id: int
    cluster: str = ""
    restarts: int | None = None
    sluid: str | None = None
    cpus: int | None = None
    gpus: tuple[str, ...] = ()
    begun_ns: int
    incomplete: str | None = None


@dataclass(frozen=True)
class Ready:
    """An event that waits to be sent."""

    path: Path
    key: str
    job_id: int
    endpoint: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """What it is among others, e.g. `job-started`."""
        return self.endpoint.rpartition("/")[2]


class Spool:
    """The spool's folders.

    Args:
        root: usually /var/spool/slurm-observability.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.new, self.running, self.ready, self.refused = (root / n for n in ("new", "running", "ready", "refused"))

    def prepare(self, group: str = "slurm") -> None:
        """Make what is missing; slurmctld's scripts, which run as SlurmUser, write to `new` by its group.

        Raises:
            OSError: a folder cannot be made.
        """
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        for folder in (self.running, self.ready, self.refused, self.new):
            folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(self.new, -1, grp.getgrnam(group).gr_gid)
            # Sticky: one script cannot remove what another wrote.
            self.new.chmod(0o1770)

    # --- records ------------------------------------------------------------------------------------------

    def records(self, job_id: int | None = None) -> Iterator[Record]:
        """The records that are there, or those of one job, oldest first; those that are cut off are put aside."""
        found = []
        for path in _files(self.new):
            if job_id is not None and not path.name.startswith(f"{job_id}."):
                continue
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, _sequence(path.name), path))
        for written, _, path in sorted(found):
            try:
                yield Record.parse(path.name, path.read_bytes(), written_ns=written)
            except RecordError as error:
                if time.time() - written / 1e9 > _CUT_OFF_AFTER:
                    self._refuse(path, str(error))

    def done(self, record: Record) -> None:
        """Forget a record."""
        (self.new / record.name).unlink(missing_ok=True)

    def put_aside(self, record: Record, why: str) -> None:
        """Keep a record of which no event can be made, where a person finds it."""
        self._refuse(self.new / record.name, why)

    # --- running jobs -------------------------------------------------------------------------------------

    def load_running(self, *, since_ns: int) -> list[RunningJob]:
        """The jobs that have begun here, but not those from before a time: the host's boot ended them."""
        jobs = []
        for path in _files(self.running):
            try:
                job = RunningJob.model_validate_json(path.read_bytes())
            except ValidationError:
                job = None
            if job and job.begun_ns >= since_ns:
                jobs.append(job)
            else:
                path.unlink(missing_ok=True)
        return jobs

    def save_running(self, job: RunningJob) -> None:
        # A loss of power ends the job, too.
        _write(self._running(job.node, job.job_id), job.model_dump_json(), durable=False)

    def forget_running(self, node: str, job_id: int) -> None:
        self._running(node, job_id).unlink(missing_ok=True)

    def _running(self, node: str, job_id: int) -> Path:
        return self.running / f"{node}.{job_id}.json"

    # --- events -------------------------------------------------------------------------------------------

    def put(self, record: Record, host: str, event: JobStarted | JobFinished) -> None:
        """Keep an event to be sent, and forget the record that it was made of.

        In this order: between the two the same record makes the same event again.
        """
        kind = "job-started" if isinstance(event, JobStarted) else "job-finished"
        # Of one moment, a start comes before an end.
        name = f"{record.written_ns:020d}.{'1' if record.is_start else '2'}.{record.key(host)}.json"
        content = {
            "key": record.key(host),
            "endpoint": f"/v1/events/{kind}",
            "body": event.model_dump(mode="json"),
        }
        _write(self.ready / name, json.dumps(content))
        self.done(record)

    def waiting(self) -> Iterator[Ready]:
        """The events to be sent, oldest first."""
        for path in _files(self.ready):
            try:
                content = json.loads(path.read_bytes())
                yield Ready(path, content["key"], content["body"]["job_id"], content["endpoint"], content["body"])
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError) as error:
                self._refuse(path, f"the file is broken: {error}")

    def sent(self, event: Ready) -> None:
        """Forget an event that the service has."""
        event.path.unlink(missing_ok=True)

    def refuse(self, event: Ready, answer: str) -> None:
        """Put an event aside that the service will never take."""
        self._refuse(event.path, answer)

    def refusals(self) -> int:
        """How many were put aside."""
        return sum(1 for path in _files(self.refused) if path.suffix != ".answer")

    def _refuse(self, path: Path, why: str) -> None:
        aside = self.refused / path.name
        _write(aside.with_name(aside.name + ".answer"), why)
        path.replace(aside)


def boot_ns() -> int:
    """When this host was booted, in nanoseconds since 1970."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _files(folder: Path) -> list[Path]:
    """The files of a folder by name, without those that are being written."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry) for entry in entries if not entry.name.startswith("."))


def _sequence(name: str) -> list[int]:
    """The uptime and the process id in a record's name: files of one tick of the kernel have the same time."""
    return [int(part) for part in name.split(".") if part.isdecimal()][1:]


def _write(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file so that it is there as a whole or not at all, where it is durable also after a power cut."""
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    unfinished.replace(path)
