"""The measures of JupyterHub, on its stack: from the request for a server until it answers."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from slurm_testbed.bench.inside import USER, Bench, on_our_clock
from slurm_testbed.bench.measure import Samples
from slurm_testbed.compose import SlurmCluster
from slurm_testbed.compose.api import Api
from slurm_testbed.errors import HubError

#: Who wants a server at once. The batch script asks for 2 CPUs and 4 GB, so that a node of ten has room for five.
USERS = tuple(f"user{number}" for number in range(10))
_start = functools.partial(SlurmCluster, stack="hub", nodes=2, cpus=10, memory=20 * 1024)
#: A spawn of one of them may take so many seconds.
_DEADLINE = 120


def spawn(bench: Bench) -> Samples:
    """A server of one user, after a first one, and where its time goes."""
    with _start(bench.release.version) as slurm:
        _know(slurm, [USER])
        _spawn(slurm, USER)
        _stop(slurm, [USER])
        while True:
            marks = _spawn(slurm, USER)
            _stop(slurm, [USER])
            yield {
                "spawn": marks["answered"] - marks["asked"],
                "spawn-job": marks["job"] - marks["asked"],
                "spawn-lab": marks["server"] - marks["job"],
                "spawn-seen": marks["answered"] - marks["server"],
            }


def together(bench: Bench) -> Samples:
    """Servers of ten users, asked for at once, until the last one answers."""
    with _start(bench.release.version) as slurm:
        for number, user in enumerate(USERS):
            for host in slurm.substrate.hosts():
                slurm.run(["useradd", f"--uid={2000 + number}", "--create-home", user], host=host.name)
        slurm.run(["sacctmgr", "--immediate", "add", "user", ",".join(USERS), "account=research"])
        _know(slurm, USERS)
        while True:
            began = time.time()
            with ThreadPoolExecutor(len(USERS)) as pool:
                marks = list(pool.map(functools.partial(_spawn, slurm), USERS))
            _stop(slurm, USERS)
            yield {"spawn-10": max(mark["answered"] for mark in marks) - began}


def _know(slurm: SlurmCluster, users: Sequence[str]) -> None:
    """Have the hub know users, as after a first login."""
    known = {user["name"] for user in slurm.hub.api("GET", "users").json()}
    for user in set(users) - known:
        slurm.hub.api("POST", f"users/{user}")


def _spawn(slurm: SlurmCluster, user: str) -> dict[str, float]:
    """Seconds since the epoch: asked, job (its script is on the node), server (it has begun), answered."""
    hub = slurm.hub
    token = hub.api("POST", f"users/{user}/tokens", {"note": "bench", "expires_in": 3600}).json()["token"]
    asked = time.time()
    hub.api("POST", f"users/{user}/server")
    job = slurm.wait_until(lambda: _ready(slurm, user), f"{user}'s server", deadline=_DEADLINE)["job_id"]
    api = Api(f"{hub.url}/user/{user}/api/", "token", HubError, lambda body: body.get("message"))
    answer = api.ask("GET", "status", token)
    answered = time.time()
    node = slurm.job(int(job)).record().fields["NodeList"]
    # slurmd wrote it when the job came; slurm.conf(5), SlurmdSpoolDir.
    script = f"/var/spool/slurmd/{node}/job{int(job):05}/slurm_script"
    began = float(slurm.run(["stat", "--format=%.Y", script], host=node).stdout)
    server = datetime.fromisoformat(answer.json()["started"]).timestamp()
    return {"asked": asked, "answered": answered, **on_our_clock({"job": began, "server": server}, asked, answered)}


def _ready(slurm: SlurmCluster, user: str) -> dict[str, Any] | None:
    """What the hub knows of the user's server, once it is ready."""
    server = slurm.hub.api("GET", f"users/{user}").json()["servers"].get("", {})
    state: dict[str, Any] = server.get("state") or {}
    return state if server.get("ready") else None


def _stop(slurm: SlurmCluster, users: Sequence[str]) -> None:
    for user in users:
        slurm.hub.api("DELETE", f"users/{user}/server")
    for user in users:
        slurm.wait_until(functools.partial(_gone, slurm, user), f"{user}'s server to be stopped", deadline=_DEADLINE)
    slurm.wait_idle(_DEADLINE)


def _gone(slurm: SlurmCluster, user: str) -> bool:
    return not slurm.hub.api("GET", f"users/{user}").json()["servers"]
