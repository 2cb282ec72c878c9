"""A session with dask-jobqueue: prints as JSON what it saw. Needs a Slurm on the PATH, and a folder to be in."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from typing import Any

from dask.distributed import Client
from dask_jobqueue import SLURMCluster


def jobs() -> set[str]:
    """The jobs that are queued or run."""
    argv = ["squeue", "--noheader", "--format=%A"]
    return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())


def wait_for(count: int) -> list[str]:
    """The jobs, once there are as many."""
    until = time.monotonic() + 60
    while len(found := jobs()) != count:
        assert time.monotonic() < until, f"{count} jobs are awaited, and there are {found}"
        time.sleep(0.1)
    return sorted(found)


def main() -> None:
    """Scale up, compute, scale down by hand and by itself, close."""

    def where(_: int) -> tuple[str, str]:
        time.sleep(0.05)
        return os.environ["SLURM_JOB_ID"], socket.gethostname()

    def fail() -> None:
        raise ValueError("a value that nobody likes")

    seen: dict[str, Any] = {}
    options = {"cores": 1, "memory": "200 MB", "walltime": "00:05:00", "nanny": False, "log_directory": "logs"}
    with SLURMCluster(local_directory="/tmp", **options) as cluster, Client(cluster) as client:
        cluster.scale(jobs=2)
        client.wait_for_workers(2, timeout=60)
        seen["two"] = wait_for(2)
        seen["places"] = sorted(set(client.gather(client.map(where, range(40), pure=False))))
        seen["sum"] = client.submit(sum, [1, 2, 3]).result()
        seen["error"] = str(client.submit(fail).exception())
        cluster.scale(jobs=1)
        seen["one"] = wait_for(1)
        seen["after"] = client.submit(sum, [4, 5]).result()
        cluster.adapt(minimum_jobs=0, maximum_jobs=2, interval="100ms", wait_count=1)
        seen["none"] = wait_for(0)
        seen["woken"] = client.submit(where, 0).result()
    seen["closed"] = wait_for(0)
    print(json.dumps(seen))  # noqa: T201


if __name__ == "__main__":
    main()
