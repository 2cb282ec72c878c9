"""A server tells the hub its port; the rest of the spawner is not its user's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from batchspawner.api import BatchSpawnerAPIHandler
from jupyterhub.apihandlers import default_handlers
from jupyterhub_slurmspawner import SlurmSpawner
from jupyterhub_slurmspawner.port import PortHandler
from tornado import httpclient, httpserver, netutil, web

from slurm_testbed import data
from tests.unit.slurmspawner.conftest import Make, run


def post(handler: type, spawner: Any, body: object) -> int:
    """Send it as the spawner's own server, past the hub's look at tokens; the answer's status."""

    class Known(handler):  # type: ignore[misc, valid-type]
        current_user = SimpleNamespace(spawners={"": spawner})

        async def prepare(self) -> None:
            pass

        def get_auth_token(self) -> str:
            return str(spawner.api_token)

        def set_default_headers(self) -> None:
            pass

    async def ask() -> int:
        (socket,) = netutil.bind_sockets(0, "127.0.0.1")
        server = httpserver.HTTPServer(web.Application([("/", Known)], db=spawner.db, log_function=print))
        server.add_socket(socket)
        url = f"http://127.0.0.1:{socket.getsockname()[1]}/"
        answer = await httpclient.AsyncHTTPClient().fetch(url, method="POST", body=json.dumps(body), raise_error=False)
        server.stop()
        await asyncio.wait_for(server.close_all_connections(), 5)
        return int(answer.code)

    return int(run(ask()))


@pytest.mark.row("H-21.1")
@pytest.mark.parametrize(
    ("handler", "status", "prefix"), [(BatchSpawnerAPIHandler, 200, "id #"), (PortHandler, 400, "sudo -u me")]
)
def test_server_cannot_change_what_the_hub_runs_as_root(
    make_spawner: Make, handler: type, status: int, prefix: str
) -> None:
    spawner = make_spawner(SlurmSpawner, exec_prefix="sudo -u me")

    assert post(handler, spawner, {"port": 4242, "exec_prefix": "id #"}) == status
    assert spawner.exec_prefix == prefix


@pytest.mark.parametrize("body", [{}, [], {"port": "1"}, {"port": 0}, {"port": 65536}, {"port": True}, None])
def test_anything_else_than_a_port_is_refused(make_spawner: Make, body: object) -> None:
    spawner = make_spawner(SlurmSpawner)

    assert post(PortHandler, spawner, body) == 400
    assert spawner.port == 0


def test_port_is_taken(make_spawner: Make) -> None:
    spawner = make_spawner(SlurmSpawner)

    assert post(PortHandler, spawner, {"port": 4242}) == 200
    assert spawner.port == 4242


def test_hub_with_stock_batchspawner_has_our_handler(tmp_path: Path) -> None:
    """In a process of its own: this one has imported the package."""
    for name in ("jupyterhub/api-token", "jupyterhub-proxy/token"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("the-token")
    folder = data.images() / "jupyter"
    hub = next(folder.glob("rootfs/hub/**/10-hub.py")).read_text().replace("/var/lib", str(tmp_path))
    program = f"""
from traitlets.config import Config
config = Config()
for text in {[hub, (folder / "examples/plain.py").read_text()]!r}:
    exec(text, {{"get_config": lambda: config}})
from jupyterhub.apihandlers import default_handlers
print(config.JupyterHub.spawner_class, *(name.__name__ for path, name, *_ in default_handlers if "batch" in path))
"""
    env = {"PYTHONPATH": str(folder / "slurmspawner")}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)

    assert done.stdout == "batchspawner.SlurmSpawner PortHandler\n", done.stderr


def test_hub_has_our_handler() -> None:
    handlers = {handler for path, handler, *_ in default_handlers if path == "/api/batchspawner"}

    assert handlers == {PortHandler}
