"""The service of job observability of a cluster that has one: where it is, and its REST API."""

from __future__ import annotations

from typing import Any, Literal

import requests

from slurm_testbed.compose.api import Api
from slurm_testbed.errors import ObservabilityError, UsageError
from slurm_testbed.slurm import Slurm

#: Where the service puts the tokens that it makes, for root alone.
_SHARED = "/shared/observability"


class Observability:
    """The service of compose/observability.yaml.

    Args:
        slurm: a cluster with a host `observability`.

    Raises:
        UsageError: the cluster has none.

    Example:
        >>> with SlurmCluster(stack="observability") as slurm:  # doctest: +SKIP
        ...     job = slurm.sbatch(wrap="true")
        ...     slurm.observability.api("GET", f"v1/jobs/{job.id}").json()["state"]
        'completed'
    """

    def __init__(self, slurm: Slurm) -> None:
        if "observability" not in {host.name for host in slurm.substrate.hosts()}:
            raise UsageError(
                "this cluster has no job observability",
                hint='take one with it: SlurmCluster(stack="observability"), invoke up.observability',
            )
        self._slurm = slurm
        self._tokens: dict[str, str] = {}
        address, port = slurm.substrate.endpoint("observability", 8080)
        #: The certificate to believe, in PEM; empty where the service speaks no TLS.
        self.certificate = slurm.substrate.exec("observability", ["cat", f"{_SHARED}/ca.crt"]).stdout
        #: Where the dashboard is, and under it the API.
        self.url = f"{'https' if self.certificate else 'http'}://{address}:{port}"
        self._api = Api(
            f"{self.url}/", "Bearer", ObservabilityError, lambda body: body["error"]["message"], self.certificate
        )

    def __repr__(self) -> str:
        return f"Observability({self.url!r})"

    def prometheus_url(self) -> str:
        """Where the stack's Prometheus is."""
        address, port = self._slurm.substrate.endpoint("prometheus", 9090)
        return f"http://{address}:{port}"

    def token(self, role: Literal["agent", "reader"] = "reader") -> str:
        """The token that was made for this cluster's agents, or for those who only read."""
        if role not in self._tokens:
            self._tokens[role] = self._slurm.read(f"{_SHARED}/{role}.token", host="observability").strip()
        return self._tokens[role]

    def api(
        self, method: str, path: str, *, role: Literal["agent", "reader"] = "reader", **options: Any
    ) -> requests.Response:
        """Ask the service's REST API.

        Args:
            method: `GET`, `POST` …
            path: what follows the address, e.g. `v1/jobs?state=running`; docs/observability.md has all.
            role: with whose token.
            options: of `requests.request`.

        Raises:
            ObservabilityError: the service refused, with its own words, or nothing answers.
        """
        return self._api.ask(method, path, self.token(role), **options)
