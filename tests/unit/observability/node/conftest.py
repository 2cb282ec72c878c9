"""Folders as a kernel shows them, and a service that answers as it is told."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from slurm_observability.node.records import Record
from slurm_observability.node.spool import Spool

from slurm_testbed import data

SCRIPTS = data.images() / "observability/rootfs/observability/etc/slurm"
SLUID = "s4G1KMZ8XQ2P0A"

#: What slurmd gives to the prolog of a job on two nodes.
PROLOG = {
    "SLURMD_NODENAME": "n1",
    "SLURM_CLUSTER_NAME": "testbed",
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_USER": "alice",
    "SLURM_JOB_UID": "1000",
    "SLURM_JOB_ACCOUNT": "physics",
    "SLURM_JOB_PARTITION": "batch",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_CPUS_PER_NODE": "2(x2)",
    "SLURM_JOB_RESTART_COUNT": "0",
    "SLURM_SCRIPT_CONTEXT": "prolog_slurmd",
}


@dataclass
class Tree:
    """A tree of cgroups in a folder."""

    root: Path

    def write(self, files: dict[str, Any]) -> None:
        """Write files of the kernel's, with the folders that lead there."""
        for name, value in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")

    def job_v1(self, job_id: int, node: str = "n1", steps: tuple[str, ...] = ("extern",), **values: int) -> str:
        """A job under v1, as 24.11 makes it: node n1 of several on a host, user 1000."""
        job = f"slurm_{node}/uid_1000/job_{job_id}"
        files: dict[str, Any] = {
            f"memory/{job}/memory.usage_in_bytes": values.get("memory", 1000),
            f"memory/{job}/memory.max_usage_in_bytes": values.get("peak", 3000),
            f"memory/{job}/memory.limit_in_bytes": values.get("limit", 200 * 2**20),
            f"cpuacct/{job}/cpuacct.usage": values.get("cpu_ns", 1_500_000_000),
            f"cpuset/{job}/cpuset.cpus": "0-1",
        }
        for step in steps:
            files |= {
                f"memory/{job}/step_{step}/memory.usage_in_bytes": 400,
                f"cpuacct/{job}/step_{step}/cpuacct.usage": 500_000_000,
                f"freezer/{job}/step_{step}/freezer.state": "THAWED",
            }
        self.write(files)
        return f"/{job}"

    def job_v2(self, name: str, node: str = "n1", steps: tuple[str, ...] = ("0",), **values: int) -> str:
        """A job under v2."""
        job = f"system.slice/{node}_slurmstepd.scope/{name}"
        files: dict[str, Any] = {
            "cgroup.controllers": "cpuset cpu io memory pids",
            f"{job}/memory.current": values.get("memory", 1000),
            f"{job}/memory.peak": values.get("peak", 3000),
            f"{job}/memory.max": values.get("limit", 200 * 2**20),
            f"{job}/cpu.stat": f"usage_usec {values.get('cpu_us', 1_500_000)}\nuser_usec 1\nsystem_usec 2",
            f"{job}/cpuset.cpus": "0-1",
        }
        for step in steps:
            files |= {
                f"{job}/step_{step}/memory.current": 400,
                f"{job}/step_{step}/cpu.stat": "usage_usec 500000\nuser_usec 1\nsystem_usec 2",
                f"{job}/step_{step}/user/cgroup.freeze": 0,
                f"{job}/step_{step}/slurm/cgroup.procs": "",
            }
        self.write(files)
        return f"/{job}"

    def job_goes(self, path: str, *controllers: str) -> None:
        """Remove a job's folder as Slurm does: its steps, and itself unless another folder is in it."""
        for controller in controllers or ("memory", "cpuacct", "cpuset", "freezer"):
            job = self.root / controller / path.lstrip("/")
            for step in job.glob("step_*"):
                for file in step.iterdir():
                    file.unlink()
                step.rmdir()
            if not any(child.is_dir() for child in job.iterdir()):
                for file in job.iterdir():
                    file.unlink()
                job.rmdir()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty tree of cgroups."""
    root = tmp_path / "cgroup"
    root.mkdir()
    return Tree(root)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """A spool on a disk of its own."""
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def run_script(spool: Spool, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script as Slurm does: with its variables and nothing else, not even a PATH."""
    env = {"OBSERVABILITY_SPOOL": str(spool.root), **variables}
    return subprocess.run([str(SCRIPTS / script)], env=env, capture_output=True, text=True, check=False)


def record(source: str = "prolog", written_ns: int = 10**18, **variables: str) -> Record:
    """The record of a script, with other variables than those of `PROLOG`; an empty one is left out."""
    values = {"KIND": source, **PROLOG, **variables, "END": "1"}
    text = "".join(f"{name}={value}\0" for name, value in values.items() if value)
    return Record.parse(f"{values['SLURM_JOB_ID']}.{source}.1.00.1", text.encode(), written_ns=written_ns)


def leave(spool: Spool, source: str = "prolog", *, written_ns: int | None = None, **variables: str) -> Path:
    """Leave a record in the spool; an empty variable is left out."""
    values = {"KIND": source, **PROLOG, **variables, "END": "1"}
    path = spool.new / f"{values['SLURM_JOB_ID']}.{source}.1.00.{written_ns or 1}"
    path.write_text("".join(f"{name}={value}\0" for name, value in values.items() if value))
    if written_ns is not None:
        os.utime(path, ns=(written_ns, written_ns))
    return path


@dataclass(frozen=True)
class Request:
    """What the service was sent."""

    path: str
    key: str | None
    token: str | None
    body: Any

    def events(self) -> list[Request]:
        """What it is made of: each event as if it had come alone."""
        if self.path != "/v1/events":
            return [self]
        return [
            Request(f"{self.path}/{report['kind']}", report["key"], self.token, report["event"])
            for report in self.body["events"]
        ]

    def is_about(self, job_id: int) -> bool:
        """Whether an event of a job is among what it was sent."""
        return any(event.body.get("job_id") == job_id for event in self.events())


Reply = tuple[int, dict[str, str], bytes]


@dataclass
class FakeService:
    """A service that keeps what it is sent, and answers as `answer` says; None: not at all."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    stored: dict[str, Request] = field(default_factory=dict)
    answer: Callable[[Request], Reply | None] | None = None

    def take(self, request: Request) -> Reply:
        """What a real one does: the same key again changes nothing."""
        if request.path == "/v1/samples":
            return 200, {}, b'{"recorded": true, "unknown_jobs": []}'
        status = 200 if request.key in self.stored else 201
        events = request.events()
        for event in events:
            self.stored.setdefault(str(event.key), event)
        answers = [{"key": event.key} for event in events]
        if request.key:
            return status, {}, json.dumps(answers[0]).encode()
        return 200, {}, json.dumps({"events": answers}).encode()

    def events(self) -> list[tuple[str, int]]:
        """What it has taken, in order."""
        return [(stored.path.rpartition("/")[2], stored.body["job_id"]) for stored in self.stored.values()]


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A service on this machine."""
    fake = FakeService()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            key, token = self.headers["Idempotency-Key"], self.headers["Authorization"]
            request = Request(self.path, key, token, json.loads(data))
            fake.requests.append(request)
            reply = fake.answer(request) if fake.answer else fake.take(request)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply[0])
            for name, value in reply[1].items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply[2])))
            self.end_headers()
            self.wfile.write(reply[2])

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that gave up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield fake
    server.shutdown()
    server.server_close()
