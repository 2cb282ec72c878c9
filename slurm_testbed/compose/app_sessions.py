"""The service of application sessions of a cluster that has one: where it is, who may log in, and its REST API."""

from __future__ import annotations

from typing import Any

import requests

from slurm_testbed.compose.api import Api
from slurm_testbed.errors import AppSessionsError, UsageError
from slurm_testbed.slurm import Slurm

#: What the role app-sessions makes at its first start, for root alone.
_STATE = "/var/lib/app-sessions"


class AppSessions:
    """The service of compose/viz.yaml.

    Args:
        slurm: a cluster with a host `app-sessions`.

    Raises:
        UsageError: the cluster has none.

    Example:
        >>> with SlurmCluster(stack="viz") as slurm:  # doctest: +SKIP
        ...     slurm.app_sessions.api("POST", "app/sessions", json={"app_id": "gedit"}).json()["status"]
        'creating'
    """

    def __init__(self, slurm: Slurm) -> None:
        if "app-sessions" not in {host.name for host in slurm.substrate.hosts()}:
            raise UsageError(
                "this cluster has no application sessions",
                hint='take one with them: SlurmCluster(stack="viz"), invoke up.viz',
            )
        self._slurm = slurm
        self._tokens: dict[str, str] = {}
        address, port = slurm.substrate.endpoint("app-sessions", 8080)
        #: Where the page is.
        self.url = f"http://{address}:{port}"
        self._api = Api(f"{self.url}/api/", "Bearer", AppSessionsError, lambda body: body["error"]["message"])

    def __repr__(self) -> str:
        return f"AppSessions({self.url!r})"

    def passwords(self) -> dict[str, str]:
        """The users who may log in, each with the password that was made for this cluster."""
        lines = self._slurm.read(f"{_STATE}/passwords", host="app-sessions").splitlines()
        return dict(line.split(":", 1) for line in lines)

    def token(self, user: str = "alice") -> str:
        """A token of a user, by logging in as they do; the same one again for the same user.

        Raises:
            AppSessionsError: the service refused, with its own words, or nothing answers.
        """
        if user not in self._tokens:
            body = {"username": user, "password": self.passwords()[user]}
            try:
                answer = self._api.ask("POST", "login", None, json=body)
            except AppSessionsError as error:
                raise AppSessionsError(error.status, f"{user} cannot log in: {error.message}") from error
            self._tokens[user] = str(answer.json()["token"])
        return self._tokens[user]

    def api(self, method: str, path: str, *, user: str = "alice", **options: Any) -> requests.Response:
        """Ask the service's REST API as a user.

        Args:
            method: `GET`, `POST`, `DELETE` …
            path: what follows `/api/`, e.g. `app/sessions`; docs/viz.md has all.
            user: who asks.
            options: of `requests.request`.

        Raises:
            AppSessionsError: the service refused, with its own words, or nothing answers.
        """
        return self._api.ask(method, path, self.token(user), **options)
