"""What Slurm says of jobs and nodes, over slurmrestd: one form for the JSON of every release.

The fields' shapes differ between versions of the API: up to v0.0.39 a state is a text and a number is a number; later
a state is a list (`["CANCELLED", "COMPLETING"]`), and a number an object (`{"set": true, "infinite": false,
"number": 1}`). https://slurm.schedmd.com/rest_api.html
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hostlist
import jwt
import requests

from slurm_observability.schema import JobState

Json = dict[str, Any]

_VERSIONED = re.compile(r"^/+slurm(?:db)?/(v\d+(?:\.\d+)+)/")
#: slurmrestd's number for a question to which there is no record: ESLURM_REST_EMPTY_RESULT of slurm/slurm_errno.h.
#: 22.05 calls that an error, later releases answer with an empty list.
_NOTHING_FOUND = 9003
_CONNECT_SECONDS = 5
_READ_SECONDS = 30
#: How long a token that we make is good for, and how long before its end the next one is made.
_TOKEN_SECONDS = 3600
_TOKEN_RESERVE = 300
#: Slurm's NO_VAL and INFINITE of 16, 32 and 64 bits: "not set", in the old form of numbers.
_NO_NUMBER = frozenset({0xFFFE, 0xFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF})
#: States of https://slurm.schedmd.com/job_state_codes.html; what is no state of ours is one of those.
_STATES = {
    "PENDING": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "SUSPENDED": JobState.SUSPENDED,
    "COMPLETED": JobState.COMPLETED,
    "CANCELLED": JobState.CANCELLED,
    "FAILED": JobState.FAILED,
    "TIMEOUT": JobState.TIMEOUT,
    "NODE_FAIL": JobState.NODE_FAIL,
    "PREEMPTED": JobState.PREEMPTED,
    "BOOT_FAIL": JobState.BOOT_FAIL,
    "DEADLINE": JobState.DEADLINE,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "LAUNCH_FAILED": JobState.FAILED,
    "RECONFIG_FAIL": JobState.FAILED,
    "REVOKED": JobState.CANCELLED,
    "RESIZING": JobState.RUNNING,
    "REQUEUED": JobState.REQUEUED,
}


#: What slurmdbd has for the nodes of a job that never had any.
_NOWHERE = "None assigned"


class SchedulerError(Exception):
    """slurmrestd does not answer, or refuses; the text says what it said."""


@dataclass(frozen=True)
class SlurmJob:
    """A job, or one run of it, as slurmctld or slurmdbd has it.

    `completing` is a run whose processes are being ended; its final state stands already.
    """

    job_id: int
    cluster: str
    state: JobState
    completing: bool
    restarts: int | None
    reason: str
    name: str
    user: str
    partition: str
    account: str
    nodes: tuple[str, ...]
    cpus: int | None
    memory_mb: int | None
    gpus: int | None
    array_job_id: int | None
    array_task_id: int | None
    het_job_id: int | None
    submitted_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    signal: int | None
    suspended_seconds: float


@dataclass(frozen=True)
class SlurmNode:
    """A node, as slurmctld has it."""

    name: str
    cluster: str
    state: str
    reason: str
    cpus: int | None
    cpus_allocated: int | None
    memory_mb: int | None
    memory_allocated_mb: int | None
    gres: str


class Slurmrestd:
    """Asks slurmrestd.

    Args:
        base_url: where it listens.
        user: whose token it is.
        key_file: Slurm's JWT key, from which tokens are made; or
        token_file: a token.
        version: of the API; the newest that is served, unless given.

    Raises:
        SchedulerError: by every method that asks.
    """

    def __init__(
        self,
        base_url: str,
        user: str,
        *,
        key_file: Path | None = None,
        token_file: Path | None = None,
        version: str | None = None,
    ) -> None:
        self._base_url, self._user = base_url, user
        self._key_file, self._token_file = key_file, token_file
        self._given, self._found = version, ""
        self._token, self._token_ends = "", 0.0
        self._lock = threading.Lock()
        self._session = requests.Session()
        # The token goes nowhere else: no proxy of the environment, no ~/.netrc, no redirect.
        self._session.trust_env = False
        self._session.headers["Accept"] = "application/json"

    @property
    def version(self) -> str:
        """The version of the API that is spoken; empty before it is known."""
        return self._given or self._found

    def jobs(self) -> list[SlurmJob]:
        """What slurmctld knows: jobs that wait, run, or ended a few minutes ago."""
        return list(read_jobs(self._get("slurm", "jobs")))

    def nodes(self) -> list[SlurmNode]:
        """The nodes."""
        return list(read_nodes(self._get("slurm", "nodes")))

    def ended(self, job_id: int) -> list[SlurmJob]:
        """slurmdbd's records of a job, one for each run, oldest first."""
        return sorted(read_records(self._get("slurmdb", f"job/{job_id}")), key=_begin)

    def ended_since(self, since: datetime) -> list[SlurmJob]:
        """slurmdbd's records of all jobs that were there after a moment, oldest first.

        A requeued job that was cancelled while it waited counts from when it was to begin, which is in the future.
        """
        until = datetime.now(UTC) + timedelta(days=1)
        # `uts` is what 22.05 needs before seconds, and later releases take.
        times = {"start_time": f"uts{int(since.timestamp())}", "end_time": f"uts{int(until.timestamp())}"}
        return sorted(read_records(self._get("slurmdb", "jobs", {**times, "skip_steps": "1"})), key=_begin)

    def forget(self) -> None:
        """Look anew for the version and the token: slurmrestd may have been upgraded, the key changed."""
        self._found, self._token_ends = "", 0.0

    def _get(self, plugin: str, path: str, query: Mapping[str, str] | None = None) -> Json:
        with self._lock:
            if not self.version:
                self._found = self._newest()
            return self._send(f"/{plugin}/{self.version}/{path}", query)

    def _newest(self) -> str:
        for path in ("/openapi/v3", "/openapi"):
            try:
                document = self._send(path)
            except SchedulerError as error:
                if path == "/openapi/v3" and "404" in str(error):
                    continue
                raise
            found = {match[1] for match in map(_VERSIONED.match, document.get("paths") or {}) if match}
            if found:
                return max(found, key=lambda version: [int(part) for part in version[1:].split(".")])
        raise SchedulerError(f"{self._base_url} is no slurmrestd: its OpenAPI document names no path of Slurm")

    def _send(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        url = self._base_url + path
        headers = {"X-SLURM-USER-NAME": self._user, "X-SLURM-USER-TOKEN": self._current_token()}
        try:
            response = self._session.get(
                url,
                params=query,
                headers=headers,
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            # Not its text: requests quotes the header that it refuses.
            raise SchedulerError(f"no answer from {url} ({type(error).__name__})") from None
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SchedulerError(f"{url} answered {response.status_code}, and no JSON object")
        errors = [one for one in answer.get("errors") or [] if one.get("error_number") != _NOTHING_FOUND]
        if response.status_code != requests.codes.ok or errors:
            raise SchedulerError(f"{url} answered {response.status_code}: {_said(errors) or response.reason}")
        return answer

    def _current_token(self) -> str:
        if self._token_file is not None:
            try:
                return self._token_file.read_text().strip().removeprefix("SLURM_JWT=")
            except OSError as error:
                raise SchedulerError(f"{self._token_file} cannot be read: {error.strerror}") from error
        if time.time() > self._token_ends - _TOKEN_RESERVE:
            assert self._key_file is not None
            try:
                key = self._key_file.read_bytes()
            except OSError as error:
                raise SchedulerError(f"{self._key_file} cannot be read: {error.strerror}") from error
            at = int(time.time())
            # `sun` is Slurm's claim for the user: https://slurm.schedmd.com/jwt.html
            claims = {"iat": at, "exp": at + _TOKEN_SECONDS, "sun": self._user}
            self._token, self._token_ends = jwt.encode(claims, key, algorithm="HS256"), float(at + _TOKEN_SECONDS)
        return self._token


def read_jobs(answer: Json) -> Iterator[SlurmJob]:
    """The jobs of slurmctld's answer."""
    for job in answer.get("jobs") or []:
        states = _words(job.get("job_state"))
        state = _state(states)
        exit_code, signal = _exit(job.get("exit_code"))
        tres = _tres(job.get("tres_alloc_str") or job.get("tres_req_str") or "")
        yield SlurmJob(
            job_id=int(job["job_id"]),
            cluster=job.get("cluster") or "",
            state=state,
            completing="COMPLETING" in states,
            restarts=_number(job.get("restart_cnt")),
            reason=_reason(job.get("state_reason")),
            name=job.get("name") or "",
            user=job.get("user_name") or "",
            partition=job.get("partition") or "",
            account=job.get("account") or "",
            nodes=tuple(expand(job.get("nodes") or "")),
            cpus=_first(_number(tres.get("cpu")), _number(job.get("cpus"))),
            memory_mb=_mebibytes(tres.get("mem")),
            gpus=_number(tres.get("gres/gpu")),
            array_job_id=_number(job.get("array_job_id")) or None,
            array_task_id=_number(job.get("array_task_id")),
            het_job_id=_number(job.get("het_job_id")) or None,
            submitted_at=_time(job.get("submit_time")),
            # Of a job that waits it is an estimate, and the end of one that runs is where its limit is.
            started_at=None if state is JobState.PENDING else _time(job.get("start_time")),
            finished_at=_time(job.get("end_time")) if state.final else None,
            exit_code=exit_code,
            signal=signal,
            suspended_seconds=0.0,
        )


def read_records(answer: Json) -> Iterator[SlurmJob]:
    """The records of slurmdbd's answer."""
    for job in answer.get("jobs") or []:
        times, state, array, het = (job.get(name) or {} for name in ("time", "state", "array", "het"))
        words = _words(state.get("current"))
        # A requeued run's record says so beside the state of the next one: ["PENDING", "REQUEUED"].
        requeued = "REQUEUED" in words and not _state(words).final
        exit_code, signal = _exit(job.get("exit_code"))
        if (exit_code, signal) == (0, 0) and _state(words) is JobState.FAILED:
            # 22.05 says SUCCESS and 0 of every job that exited by itself: sacct has another number, this way has none.
            exit_code = signal = None
        tres = {
            f"{one['type']}/{one['name']}" if one.get("name") else one["type"]: one.get("count")
            for one in (job.get("tres") or {}).get("allocated") or []
        }
        yield SlurmJob(
            job_id=int(job["job_id"]),
            cluster=job.get("cluster") or "",
            state=JobState.REQUEUED if requeued else _state(words),
            completing=False,
            restarts=_number(job.get("restart_cnt")),
            reason=_reason(state.get("reason")),
            name=job.get("name") or "",
            user=job.get("user") or (job.get("association") or {}).get("user") or "",
            partition=job.get("partition") or "",
            account=job.get("account") or "",
            nodes=() if job.get("nodes") == _NOWHERE else tuple(expand(job.get("nodes") or "")),
            cpus=_number(tres.get("cpu")),
            memory_mb=_number(tres.get("mem")),
            gpus=_number(tres.get("gres/gpu")),
            array_job_id=_number(array.get("job_id")) or None,
            array_task_id=_number(array.get("task_id") if "task_id" in array else array.get("task")),
            het_job_id=_number(het.get("job_id")) or None,
            submitted_at=_time(times.get("submission")),
            started_at=_time(times.get("start")),
            finished_at=_time(times.get("end")),
            exit_code=exit_code,
            signal=signal,
            suspended_seconds=float(_number(times.get("suspended")) or 0),
        )


def read_nodes(answer: Json) -> Iterator[SlurmNode]:
    """The nodes of slurmctld's answer."""
    for node in answer.get("nodes") or []:
        state = [*_words(node.get("state")), *(_words(node.get("state_flags")))]
        yield SlurmNode(
            name=node["name"],
            cluster=node.get("cluster_name") or "",
            state="+".join(dict.fromkeys(word.lower() for word in state)),
            reason=node.get("reason") or "",
            cpus=_number(node.get("cpus")),
            cpus_allocated=_number(node.get("alloc_cpus")),
            memory_mb=_number(node.get("real_memory")),
            memory_allocated_mb=_number(node.get("alloc_memory")),
            gres=node.get("gres") or "",
        )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _begin(job: SlurmJob) -> datetime:
    return job.started_at or job.finished_at or job.submitted_at or datetime.now(UTC) + timedelta(days=1)


def _number(value: Any) -> int | None:
    """A number in any form; None where none is set.

    Example:
        >>> _number({"set": True, "infinite": False, "number": 3}), _number(3), _number({"set": False, "number": 0})
        (3, 3, None)
    """
    if isinstance(value, Mapping):
        return _number(value.get("number")) if value.get("set") and not value.get("infinite") else None
    if isinstance(value, str):
        return int(value) if value.isdigit() else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if value < 0 or value in _NO_NUMBER else int(value)


def _time(value: Any) -> datetime | None:
    seconds = _number(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.upper().replace(",", " ").split()
    return [str(word).upper() for word in value or []]


def _state(words: list[str]) -> JobState:
    """The state that a list of states and flags comes to.

    Example:
        >>> _state(["CANCELLED", "COMPLETING"]), _state(["PENDING", "REQUEUED"])
        (<JobState.CANCELLED: 'cancelled'>, <JobState.PENDING: 'pending'>)
    """
    known = [_STATES[word] for word in words if word in _STATES]
    # REQUEUED and RESIZING are flags beside a state, but also a record's only word.
    plain = [state for state in known if state is not JobState.REQUEUED]
    if plain or known:
        return (plain or known)[0]
    return JobState.COMPLETING if "COMPLETING" in words else JobState.PENDING


def _exit(value: Any) -> tuple[int | None, int | None]:
    """Exit code and signal.

    In the old form slurmctld's is the raw wait status, slurmdbd's an object of plain numbers.

    Example:
        >>> _exit(256), _exit(9), _exit({"return_code": 0, "signal": {"signal_id": 15}})
        ((1, 0), (0, 9), (0, 15))
    """
    if isinstance(value, Mapping) and "return_code" in value:
        signal = value.get("signal") or {}
        number = _number(signal.get("id", signal.get("signal_id")) if isinstance(signal, Mapping) else signal)
        return _number(value.get("return_code")) or 0, number or 0
    status = _number(value)
    if status is None:
        return None, None
    return status >> 8 & 0xFF, status & 0x7F


def _reason(value: Any) -> str:
    return "" if value in {None, "None"} else str(value)


def expand(hosts: str) -> list[str]:
    """The names of a host list.

    Example:
        >>> expand("n[1-2],login")
        ['n1', 'n2', 'login']
    """
    return list(hostlist.expand_hostlist(hosts)) if hosts else []


def _tres(text: str) -> dict[str, str]:
    """`cpu=1,mem=100M,gres/gpu=2` as a mapping."""
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _mebibytes(text: str | None) -> int | None:
    """Slurm's `100M` or `1.50G` in MiB.

    Example:
        >>> _mebibytes("1.50G"), _mebibytes("100M")
        (1536, 100)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", text or "")
    if not found:
        return None
    factor = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}[found[2]]
    return round(float(found[1]) * factor)


def _said(errors: Any) -> str:
    texts = []
    for error in errors if isinstance(errors, list) else [errors]:
        if isinstance(error, Mapping):
            texts.append(str(error.get("description") or error.get("error") or error))
        else:
            texts.append(str(error))
    return "; ".join(texts)[:500]
