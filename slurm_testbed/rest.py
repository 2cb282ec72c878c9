"""slurmrestd by requests: the API version found by asking, JSON in and out, errors as exceptions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import requests

from slurm_testbed.errors import RestUnreachableError, SlurmRestError, SlurmTestbedError

#: An object of an answer of slurmrestd; its fields differ between API versions.
Json = dict[str, Any]

#: Slurm's SLURM_PROTOCOL_AUTHENTICATION_ERROR: what a token that slurmctld refuses comes to.
AUTHENTICATION_ERROR = 1007
#: The first API version that wants a job's environment as a list of `NAME=value`.
ENVIRONMENT_IS_A_LIST = (0, 0, 39)
#: Slurm refuses a job without an environment or a working directory.
DEFAULT_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
DEFAULT_WORKING_DIRECTORY = "/tmp"  # noqa: S108  # in the cluster, where every user can write to it

_VERSIONED_PATH = re.compile(r"^/+slurm(?:db)?/(v\d+(?:\.\d+)+)/")
_EXCERPT_CHARACTERS = 300


class Rest:
    """One user's way to slurmrestd.

    Proxies and ~/.netrc of the caller's environment are left aside, so that the token goes nowhere else.

    Args:
        base_url: where slurmrestd listens, such as `http://127.0.0.1:6820`.
        user: sent as X-SLURM-USER-NAME; None leaves the header out.
        token: sent as X-SLURM-USER-TOKEN, also as `scontrol token` prints it (`SLURM_JWT=…`);
            None leaves the header out.
        version: the API version to speak, such as `v0.0.40`; the newest that is served, unless given.
        timeout: seconds to wait for a connection, and for each part of an answer.

    Example:
        >>> rest = Rest("http://127.0.0.1:6820", "alice", "eyJhbGciOi.secret.part")
        >>> rest
        Rest('http://127.0.0.1:6820', user='alice')
        >>> job_id = rest.submit("#!/bin/sh\\nhostname", partition="debug")      # doctest: +SKIP
        >>> rest.job(job_id)["job_state"]                                       # doctest: +SKIP
        ['PENDING']
    """

    def __init__(
        self,
        base_url: str,
        user: str | None,
        token: str | None,
        *,
        version: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.base_url, self.user, self.timeout = base_url.rstrip("/"), user, timeout
        self._version, self._token = version, (token or "").strip().removeprefix("SLURM_JWT=")
        self._session = requests.Session()
        self._session.trust_env = False
        headers = {"X-SLURM-USER-NAME": user, "X-SLURM-USER-TOKEN": self._token or None}
        self._session.headers.update({name: value for name, value in headers.items() if value is not None})
        # slurmrestd speaks YAML, too.
        self._session.headers["Accept"] = "application/json"

    def __repr__(self) -> str:
        return f"Rest({self.base_url!r}, user={self.user!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next request opens a new one."""
        self._session.close()

    def versions(self) -> list[str]:
        """The API versions that this slurmrestd serves, oldest to newest; it is asked once.

        Raises:
            SlurmRestError: slurmrestd refused, or what answers is no slurmrestd.
            RestUnreachableError: nothing answers.
        """
        return list(self._versions)

    @cached_property
    def _versions(self) -> list[str]:
        path = "/openapi/v3"
        try:
            document = self._send("GET", path)
        except SlurmRestError as error:
            if error.status != requests.codes.not_found:
                raise
            path = "/openapi"
            document = self._send("GET", path)
        found = {match[1] for match in map(_VERSIONED_PATH.match, document.get("paths") or {}) if match}
        if not found:
            raise SlurmRestError(
                requests.codes.ok, ["its OpenAPI document names no path of Slurm"], self.base_url + path
            )
        return sorted(found, key=_number)

    @property
    def version(self) -> str:
        """The API version that is spoken where a call names none."""
        return self._version or self._versions[-1]

    def get(
        self,
        path: str,
        *,
        version: str | None = None,
        db: bool = False,
        params: Mapping[str, Any] | None = None,
    ) -> Json:
        """Read an object.

        Args:
            path: below the version, such as `ping` or `job/42`.
            version: the API version; `self.version`, unless given.
            db: ask slurmdbd (`/slurmdb/…`) instead of slurmctld (`/slurm/…`).
            params: the query.

        Raises:
            SlurmRestError: with Slurm's own text; also where the status is 200 but there are errors.
            RestUnreachableError: nothing answers, or not in time.
        """
        return self._send("GET", self._path(path, version, db), params=params)

    def post(
        self,
        path: str,
        json: object,
        *,
        version: str | None = None,
        db: bool = False,
        params: Mapping[str, Any] | None = None,
    ) -> Json:
        """Create or change an object; arguments and errors are those of `get`.

        Args:
            path: below the version, such as `job/submit`.
            json: the body.
            version: the API version; `self.version`, unless given.
            db: ask slurmdbd instead of slurmctld.
            params: the query; 24.11 refuses a query beside a body.
        """
        return self._send("POST", self._path(path, version, db), params=params, body=json)

    def delete(
        self,
        path: str,
        *,
        version: str | None = None,
        db: bool = False,
        params: Mapping[str, Any] | None = None,
    ) -> Json:
        """Remove an object; arguments and errors are those of `get`."""
        return self._send("DELETE", self._path(path, version, db), params=params)

    def ping(self) -> list[Json]:
        """The controllers, each with its `hostname` and what a ping of it found.

        It proves no authentication: with a token that slurmctld refuses, slurmrestd answers all the
        same, and calls the controller DOWN.
        """
        return list(self.get("ping")["pings"])

    def submit(self, script: str, *, version: str | None = None, **job: Any) -> int:
        """Submit a batch job and return its id.

        Args:
            script: the batch script, with its `#!` line.
            version: the API version; `self.version`, unless given.
            job: fields of the job as the API version names them (`name`, `partition`, `tasks`, …).
                `environment` may be a mapping or a list of `NAME=value` and is sent as the version
                wants it; without one the job gets a PATH. Without `current_working_directory` it
                runs in /tmp.

        Raises:
            SlurmRestError: Slurm refused the job, with its own text.
            RestUnreachableError: nothing answers, or not in time.
        """
        version = version or self.version
        environment = _environment(job.pop("environment", DEFAULT_ENVIRONMENT), version)
        job = {"current_working_directory": DEFAULT_WORKING_DIRECTORY, **job, "environment": environment}
        body = {"script": script, "job": job}
        path = self._path("job/submit", version)
        # 22.05 lists as errors what sbatch only mentions ("Requested nodes are busy"): an answer with
        # a job id is a job, and an exception would lose its id.
        answer = self._send("POST", path, body=body, accept=lambda said: bool(said.get("job_id")))
        return int(answer["job_id"])

    def jobs(self) -> list[Json]:
        """Every job that slurmctld knows and the user may see."""
        return list(self.get("jobs")["jobs"])

    def job(self, job_id: int) -> Json:
        """One job; from v0.0.40 on its `job_state` is a list of texts, in old API versions a text.

        Args:
            job_id: its id; for an array, its first entry is returned.

        Raises:
            SlurmRestError: there is no such job.
        """
        path = f"job/{job_id}"
        jobs = list(self.get(path)["jobs"])
        if not jobs:
            raise SlurmRestError(requests.codes.ok, [f"no job {job_id}"], self.base_url + self._path(path))
        return next((job for job in jobs if job.get("job_id") == job_id), jobs[0])

    def cancel(self, job_id: int) -> None:
        """Cancel a job; one that has ended already is no error.

        Args:
            job_id: its id.

        Raises:
            SlurmRestError: there is no such job, or it is another user's.
        """
        answer = self.delete(f"job/{job_id}")
        # From v0.0.41 on a refusal stands beside `errors`, for one signal may go to many jobs.
        refused = [entry["error"] for entry in answer.get("status", []) if entry.get("error", {}).get("code")]
        if refused:
            texts = [{"error": error.get("string"), "error_number": error["code"]} for error in refused]
            raise SlurmRestError(200, texts, f"{self.base_url}{self._path(f'job/{job_id}')}")

    def _path(self, path: str, version: str | None = None, db: bool = False) -> str:
        return f"/{'slurmdb' if db else 'slurm'}/{version or self.version}/{path.lstrip('/')}"

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: object = None,
        accept: Callable[[Json], bool] | None = None,
    ) -> Json:
        url = self.base_url + path
        try:
            response = self._session.request(
                method, url, params=params, json=body, timeout=self.timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            # Without the cause: requests quotes a header that it refuses, and keeps the request.
            raise self._unreachable(error, f"{method} {url}") from None
        answer = _parsed(response)
        if answer is None or not 200 <= response.status_code < 300:
            raise self._refused(response, answer)
        if answer.get("errors") and not (accept and accept(answer)):
            raise self._refused(response, answer)
        return answer

    def _unreachable(self, error: requests.RequestException, what: str) -> SlurmTestbedError:
        if isinstance(error, requests.exceptions.InvalidHeader):
            return SlurmTestbedError(
                "the user name or the token cannot stand in an HTTP header",
                hint="pass the token as one line, as `scontrol token` prints it",
            )
        if isinstance(error, requests.Timeout):
            said = f"no answer to {what} within {self.timeout:g} s"
        else:
            said = f"no connection for {what}: {_reason(error)}"
        return RestUnreachableError(
            self._redacted(said),
            hint="look at slurmrestd's log: it may not run (it refuses to run as root or SlurmUser), "
            "listen elsewhere, or wait for slurmctld",
        )

    def _refused(self, response: requests.Response, answer: Json | None) -> SlurmRestError:
        text = self._redacted(response.content.decode("utf-8", "replace")).strip()
        if answer is not None:
            errors = json.loads(text).get("errors") or [response.reason]
        elif 200 <= response.status_code < 300:
            errors = [f"the answer is no JSON object: {text[:_EXCERPT_CHARACTERS] or 'it is empty'}"]
        else:
            errors = [text[:_EXCERPT_CHARACTERS] or response.reason]
        error = SlurmRestError(response.status_code, errors, self._redacted(response.url))
        error.hint = self._hint(response.status_code, errors, from_slurm=answer is not None)
        return error

    def _hint(self, status: int, errors: Sequence[object], *, from_slurm: bool) -> str:
        said = [error for error in errors if isinstance(error, Mapping)]
        # The name of the number differs between API versions, and within 22.05 between paths.
        numbers = {error.get(name) for error in said for name in ("error_number", "error_code", "errno")}
        if status == requests.codes.unauthorized:
            return "send a user name and a token; make one with: scontrol token username=USER"
        if AUTHENTICATION_ERROR in numbers:
            return "the token may have expired, be another user's, or be signed with another cluster's key"
        if status == requests.codes.not_found and not from_slurm and "_versions" in self.__dict__:
            return f"this slurmrestd serves {', '.join(self._versions)}"
        return ""

    def _redacted(self, text: str) -> str:
        return text.replace(self._token, "***") if self._token else text


def _number(version: str) -> tuple[int, ...]:
    """`v0.0.40` as numbers, which sort and compare.

    Example:
        >>> sorted(["v0.0.100", "v0.0.40"], key=_number)
        ['v0.0.40', 'v0.0.100']
    """
    return tuple(int(part) for part in version.lstrip("v").split("."))


def _environment(given: Mapping[str, str] | Sequence[str], version: str) -> Mapping[str, str] | list[str]:
    """An environment in the form that an API version wants.

    Example:
        >>> _environment({"LANG": "C"}, "v0.0.40"), _environment(["LANG=C"], "v0.0.38")
        (['LANG=C'], {'LANG': 'C'})
    """
    if isinstance(given, Mapping):
        pairs = {name: str(value) for name, value in given.items()}
    else:
        pairs = {name: value for name, _, value in (line.partition("=") for line in given)}
    if _number(version) >= ENVIRONMENT_IS_A_LIST:
        return [f"{name}={value}" for name, value in pairs.items()]
    return pairs


def _parsed(response: requests.Response) -> Json | None:
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _reason(error: requests.RequestException) -> str:
    """What the system said, without the names of urllib3's objects around it."""
    inner: Any = error.args[0] if error.args else error
    inner = getattr(inner, "reason", None) or inner
    if isinstance(getattr(inner, "args", None), tuple) and len(inner.args) > 1:
        inner = inner.args[-1]
    return re.sub(r"^.*?\): ", "", str(inner))
