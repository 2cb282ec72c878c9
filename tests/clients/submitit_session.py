"""A session with submitit: prints as JSON what it saw. Needs a Slurm on the PATH, and a shared folder to be in."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

import submitit


def main() -> None:
    """Submit everything first, then look at it."""

    def where() -> dict[str, Any]:
        env = submitit.JobEnvironment()
        return {
            "job": env.job_id,
            "host": socket.gethostname(),
            "nodes": env.hostnames,
            "rank": env.global_rank,
            "user": os.getuid(),
            "python": list(sys.version_info[:2]),
        }

    def fail() -> None:
        raise ValueError("a value that nobody likes")

    def square(number: int) -> int:
        return number * number

    executor = submitit.AutoExecutor(folder="submitit")
    executor.update_parameters(timeout_min=5, name="one")
    one = executor.submit(where)
    failing = executor.submit(fail)
    endless = executor.submit(time.sleep, 600)
    array = executor.map_array(square, range(4))
    executor.update_parameters(nodes=2, tasks_per_node=1, name="two-nodes")
    two = executor.submit(where)

    seen: dict[str, Any] = {"cluster": executor.cluster}
    seen["one"] = one.result() | {"id": one.job_id}
    seen["squares"] = [job.result() for job in array]
    seen["array"] = [job.job_id for job in array]
    seen["tasks"] = two.results()
    seen["error"] = str(failing.exception())
    until = time.monotonic() + 60
    while endless.watcher.get_state(endless.job_id, mode="force") != "RUNNING":
        assert time.monotonic() < until, f"the job is {endless.state}"
    seen["running"] = {"state": endless.state, "done": endless.done(force_check=True)}
    endless.cancel()
    while not endless.done(force_check=True):
        assert time.monotonic() < until, f"the cancelled job is {endless.state}"
        time.sleep(0.1)
    jobs = {"one": one, "failing": failing, "endless": endless, "array": array[-1], "two": two}
    for job in jobs.values():
        while not job.watcher.is_done(job.job_id, mode="force"):
            assert time.monotonic() < until, f"job {job.job_id} is {job.state} for sacct"
    seen["states"] = {name: job.state for name, job in jobs.items()}
    seen["info"] = one.get_info(mode="force")
    print(json.dumps(seen))  # noqa: T201


if __name__ == "__main__":
    main()
