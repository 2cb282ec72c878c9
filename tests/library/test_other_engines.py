"""Engines that are not at Docker's socket: clusters start on them, and their ports are reached where they are."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config

from slurm_testbed import SlurmCluster, SlurmContainer, engine
from slurm_testbed.releases import Release


class Pipe(socketserver.BaseRequestHandler):
    """Docker's own socket, by TCP: Docker hijacks connections, so that bytes are all that a pipe may know of."""

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(engine.CLI_DEFAULT.removeprefix("unix://"))
            back = threading.Thread(target=pump, args=(there, self.request))
            back.start()
            pump(self.request, there)
            back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # the other side has gone
        return


@pytest.fixture(params=["DOCKER_HOST", "DOCKER_CONTEXT"])
def other_machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The engine as one of another machine: its address is not this one's 127.0.0.1."""
    with socketserver.ThreadingTCPServer(("127.0.0.2", 0), Pipe) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"tcp://127.0.0.2:{server.server_address[1]}"
        # Testcontainers Desktop names one in ~/.testcontainers.properties: nobody answers at this one.
        monkeypatch.setitem(testcontainers_config.tc_properties, "tc.host", "tcp://127.0.0.1:9")
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        if request.param == "DOCKER_HOST":
            monkeypatch.setenv("DOCKER_HOST", url)
        else:
            monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
            monkeypatch.setenv("DOCKER_CONTEXT", "lab")
            (tmp_path / "config.json").write_text("{}")  # the SDK looks for contexts beside it
            meta = tmp_path / "contexts/meta" / hashlib.sha256(b"lab").hexdigest()
            meta.mkdir(parents=True)
            endpoint = {"Name": "lab", "Metadata": {}, "Endpoints": {"docker": {"Host": url, "SkipTLSVerify": False}}}
            (meta / "meta.json").write_text(json.dumps(endpoint))
        yield "127.0.0.2"
        server.shutdown()


@pytest.mark.parametrize("kind", [SlurmContainer, SlurmCluster])
def test_cluster_starts_on_the_engine_that_is_named_and_its_ports_are_reached_there(
    other_machine: str, slurm_release: Release, kind: Callable[..., SlurmContainer | SlurmCluster]
) -> None:
    before = dict(os.environ)

    with kind(slurm_release.version) as slurm:
        assert other_machine in slurm.rest_url()
        assert slurm.rest().ping()
        assert slurm.sbatch(wrap="true").wait().state == "COMPLETED"

    assert dict(os.environ) == before, "what comes after would look for another engine"
