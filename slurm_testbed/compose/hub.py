"""The JupyterHub of a cluster that has one: where it is, who may log in, and its REST API."""

from __future__ import annotations

from typing import Any

import requests

from slurm_testbed.compose.api import Api
from slurm_testbed.errors import HubError, UsageError
from slurm_testbed.slurm import Slurm

#: What the role hub makes at its first start, for root alone.
_STATE = "/var/lib/jupyterhub"


class Hub:
    """The JupyterHub of compose/hub.yaml.

    Args:
        slurm: a cluster with a host `hub`.

    Raises:
        UsageError: the cluster has none.

    Example:
        >>> with SlurmCluster(stack="hub") as slurm:  # doctest: +SKIP
        ...     slurm.hub.api("POST", "users/alice/server").status_code
        202
    """

    def __init__(self, slurm: Slurm) -> None:
        if "hub" not in {host.name for host in slurm.substrate.hosts()}:
            raise UsageError(
                "this cluster has no hub", hint='take one with it: SlurmCluster(stack="hub"), invoke up.hub'
            )
        self._slurm = slurm
        address, port = slurm.substrate.endpoint("proxy", 8000)
        #: Where the page is.
        self.url = f"http://{address}:{port}"
        self._api = Api(f"{self.url}/hub/api/", "token", HubError, lambda body: body.get("message"))

    def __repr__(self) -> str:
        return f"Hub({self.url!r})"

    def passwords(self) -> dict[str, str]:
        """The users who may log in, each with the password that was made for this cluster."""
        lines = self._slurm.read(f"{_STATE}/passwords", host="hub").splitlines()
        return dict(line.split(":", 1) for line in lines)

    def token(self) -> str:
        """The token of the hub's service `slurm-testbed`, which may do anything with all users' servers."""
        return self._slurm.read(f"{_STATE}/api-token", host="hub")

    def api(self, method: str, path: str, json: object = None, **options: Any) -> requests.Response:
        """Ask the hub's REST API as its service `slurm-testbed`.

        Args:
            method: `GET`, `POST`, `DELETE` …
            path: what follows `/hub/api/`: https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html
            json: the body.
            options: of `requests.request`.

        Returns:
            The answer.

        Raises:
            HubError: the hub refused, with its own words, or nothing answers.
        """
        return self._api.ask(method, path, self.token(), json=json, **options)
