"""Slurm by slurmrestd: each request with a token of the user whom it is about, made from Slurm's key.

The fields' shapes differ between versions of the API: up to v0.0.39 a state is a text and the environment a mapping;
later a state is a list, a number an object, the environment a list. https://slurm.schedmd.com/rest_api.html
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import requests

from app_sessions.errors import SlurmAwayError, SlurmError
from app_sessions.slurm.jobs import Partition, SlurmJob, Submission

Json = dict[str, Any]
_VERSIONED = re.compile(r"^/+slurm/(v\d+(?:\.\d+)+)/")
_CONNECT_SECONDS = 5
_READ_SECONDS = 30
#: How long a token that we make is good for; each request has a new one.
_TOKEN_SECONDS = 300
#: From this version on an environment is a list, and a number may be an object.
_LISTS = (0, 0, 40)
_PATH = "/usr/local/bin:/usr/bin:/bin"
_NOTHING = {"", "None", "(null)", "None assigned"}
#: Slurm's words for a job that is over: ESLURM_INVALID_JOB_ID and ESLURM_ALREADY_DONE.
_GONE = re.compile(r"Invalid job id|already completing or completed|already finished", re.IGNORECASE)


class Slurmrestd:
    """Slurm by slurmrestd.

    Args:
        base_url: where it listens.
        key_file: Slurm's JWT key: https://slurm.schedmd.com/jwt.html
        user: who looks at the queue; one who sees everybody's jobs.
        version: of the API; the newest that is served, unless given.
    """

    def __init__(self, base_url: str, key_file: Path, user: str = "slurm", version: str | None = None) -> None:
        self._base_url, self._key_file, self._user = base_url, key_file, user
        self._given, self._found = version, ""
        self._session = requests.Session()
        # A token goes nowhere else: no proxy of the environment, no ~/.netrc, no redirect.
        self._session.trust_env = False

    async def submit(self, job: Submission) -> int:
        """Submit a job as its user; the script is sent, and its own directives are not read."""
        version = await self._version()
        environment = {"PATH": _PATH, "USER": job.user, "LOGNAME": job.user, **job.environment}
        lists = _numbers(version) >= _LISTS
        body = {
            "script": job.script.read_text(),
            "job": {
                "name": job.name,
                "partition": job.partition,
                "nodes": str(job.nodes) if lists else job.nodes,
                "tasks": 1,
                "cpus_per_task": job.cpus_per_task,
                "memory_per_node": _number(job.memory_mib, lists),
                "time_limit": _number(job.minutes, lists),
                "requeue": False,
                # Its home, which this host need not have, is the script's matter.
                "current_working_directory": "/tmp",  # noqa: S108
                "standard_output": job.output,
                "environment": [f"{name}={value}" for name, value in environment.items()] if lists else environment,
            },
        }
        # 22.05 lists as errors what sbatch only mentions: an answer with a job id is a job.
        answer = await self._ask("POST", f"/slurm/{version}/job/submit", user=job.user, body=body, sends=True)
        if not answer.get("job_id"):
            raise SlurmError("slurmrestd answered no job id")
        return int(answer["job_id"])

    async def cancel(self, job_id: int, user: str) -> None:
        """Cancel a job as its user."""
        version = await self._version()
        try:
            await self._ask("DELETE", f"/slurm/{version}/job/{job_id}", user=user)
        except SlurmAwayError:
            raise
        except SlurmError as error:
            if not _GONE.search(str(error)):
                raise

    async def jobs(self) -> list[SlurmJob]:
        """All jobs."""
        return read_jobs(await self._ask("GET", f"/slurm/{await self._version()}/jobs"))

    async def partition(self, name: str) -> Partition | None:
        """A partition, with the states of its nodes."""
        version = await self._version()
        partitions = await self._ask("GET", f"/slurm/{version}/partitions")
        nodes = await self._ask("GET", f"/slurm/{version}/nodes")
        return read_partition(name, partitions, nodes)

    async def node_address(self, node: str) -> str:
        """A node's address."""
        answer = await self._ask("GET", f"/slurm/{await self._version()}/node/{node}")
        found = [one.get("address") for one in answer.get("nodes") or [] if one.get("address")]
        if not found:
            raise SlurmError(f"slurmrestd tells no address of the node {node}")
        return str(found[0])

    async def _version(self) -> str:
        if self._given:
            return self._given
        if not self._found:
            for path in ("/openapi/v3", "/openapi"):
                try:
                    document = await self._ask("GET", path)
                except SlurmError as error:
                    if path == "/openapi/v3" and " 404" in str(error):
                        continue
                    raise
                found = {match[1] for match in map(_VERSIONED.match, document.get("paths") or {}) if match}
                if found:
                    self._found = max(found, key=_numbers)
                    break
            else:
                raise SlurmError(f"{self._base_url} is no slurmrestd: its OpenAPI document names no path of Slurm")
        return self._found

    async def _ask(
        self, method: str, path: str, *, user: str = "", body: Json | None = None, sends: bool = False
    ) -> Json:
        return await asyncio.to_thread(self._send, method, path, user or self._user, body, sends)

    def _send(self, method: str, path: str, user: str, body: Json | None, sends: bool) -> Json:
        url = self._base_url + path
        headers = {"X-SLURM-USER-NAME": user, "X-SLURM-USER-TOKEN": self._token(user), "Accept": "application/json"}
        try:
            response = self._session.request(
                method,
                url,
                json=body,
                headers=headers,
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            # It may have been upgraded meanwhile.
            self._found = ""
            # Not its text: requests quotes the header that it refuses.
            perhaps = not isinstance(error, requests.ConnectTimeout)
            raise SlurmAwayError(
                f"Slurm does not answer: no answer from {url} ({type(error).__name__})", perhaps=perhaps
            ) from None
        if response.status_code == requests.codes.not_found:
            # Or before this one answered, which serves other versions.
            self._found = ""
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SlurmAwayError(f"Slurm does not answer: {url} answered {response.status_code}, and no JSON object")
        errors = _said(answer)
        if sends and answer.get("job_id"):
            return answer
        if response.status_code != requests.codes.ok or errors:
            text = errors or f"{path} answered {response.status_code}"
            if re.search("Unable to contact slurm controller|Socket timed out|connect failure", text):
                raise SlurmAwayError(f"Slurm does not answer: {text}", perhaps="Socket timed out" in text)
            raise SlurmError(f"Slurm refused: {text} ({response.status_code})")
        return answer

    def _token(self, user: str) -> str:
        try:
            key = self._key_file.read_bytes()
        except OSError as error:
            raise SlurmError(f"{self._key_file} cannot be read: {error.strerror}") from error
        at = int(time.time())
        # `sun` is Slurm's claim for the user.
        return jwt.encode({"iat": at, "exp": at + _TOKEN_SECONDS, "sun": user}, key, algorithm="HS256")


def read_jobs(answer: Json) -> list[SlurmJob]:
    """The jobs of slurmctld's answer."""
    return [
        SlurmJob(
            job_id=int(job["job_id"]),
            name=job.get("name") or "",
            user=job.get("user_name") or "",
            state=_state(_words(job.get("job_state"))),
            node=job.get("batch_host") or "",
            reason=_text(job.get("state_reason")),
            comment=_text(job.get("comment")),
        )
        for job in answer.get("jobs") or []
    ]


def read_partition(name: str, partitions: Json, nodes: Json) -> Partition | None:
    """A partition, with the states of its nodes."""
    for partition in partitions.get("partitions") or []:
        if partition.get("name") == name:
            state = partition.get("partition", {}).get("state", partition.get("state", "UP"))
            found: Counter[str] = Counter()
            for node in nodes.get("nodes") or []:
                if name in (node.get("partitions") or []):
                    words = [*_words(node.get("state")), *_words(node.get("state_flags"))]
                    found["+".join(dict.fromkeys(word.lower() for word in words))] += 1
            return Partition(name, "UP" in _words(state), found)
    return None


def _state(words: list[str]) -> str:
    # A job that is being ended has its final state beside this flag, and is not over yet.
    return "COMPLETING" if "COMPLETING" in words else next(iter(words), "PENDING")


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.upper().replace(",", " ").split()
    return [str(word).upper() for word in value or []]


def _text(value: Any) -> str:
    return "" if not isinstance(value, str) or value in _NOTHING else value


def _number(value: int, lists: bool) -> object:
    return {"set": True, "infinite": False, "number": value} if lists else value


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("."))


def _said(answer: Mapping[str, Any]) -> str:
    """What slurmrestd says is wrong; from v0.0.41 on a refusal of one of many signals stands beside `errors`."""
    errors = list(answer.get("errors") or [])
    entries = answer.get("status")
    if isinstance(entries, list):
        errors += [
            entry["error"] for entry in entries if isinstance(entry, dict) and entry.get("error", {}).get("code")
        ]
    texts = [str(one.get("error") or one.get("string") or one.get("description") or one) for one in errors]
    return "; ".join(dict.fromkeys(texts))
