"""The handler by which a server tells the hub its port: it takes the port, and nothing else."""

from __future__ import annotations

from batchspawner.api import BatchSpawnerAPIHandler
from jupyterhub.apihandlers import default_handlers
from tornado import web


class PortHandler(BatchSpawnerAPIHandler):  # type: ignore[misc] # it has no types
    """batchspawner's `POST /hub/api/batchspawner`, which sets whatever attribute of the spawner a server names.

    A server's token is its user's, and the spawner's attributes are commands that the hub runs as root.
    """

    @web.authenticated
    def post(self) -> None:
        """Take `{"port": 1 … 65535}`."""
        told = self.get_json_body()
        port = told.get("port") if isinstance(told, dict) and set(told) == {"port"} else None
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
            raise web.HTTPError(400, 'a server tells its port, and nothing else: {"port": 1 … 65535}')
        super().post()


def install() -> None:
    """Put ours in the place of batchspawner's, before the hub makes its handlers."""
    default_handlers[:] = [
        (path, PortHandler if handler is BatchSpawnerAPIHandler else handler, *rest)
        for path, handler, *rest in default_handlers
    ]
