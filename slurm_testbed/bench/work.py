"""The measures of what a cluster does: jobs and requests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from slurm_testbed.bench.inside import USER, Bench, a_moment, memory, timed
from slurm_testbed.bench.measure import Samples
from slurm_testbed.rest import Rest

#: Requests of one sample of slurmrestd, and how many threads share them.
REQUESTS = 100
THREADS = 4
#: Jobs that slurmrestd lists when it is asked for jobs.
LISTED_JOBS = 20


_ROUND_TRIP = """
! read -r -t {pause} -u "$nap"
mark begin
job=$(sbatch --parsable --wrap=hostname)
await 60 0.02 "the job to be over" over "$job"; mark end; completed "$job"
"""

_SINGLE_JOBS = """
mark begin
for ((i = 0; i < {count}; i++)); do sbatch --parsable --wrap=hostname > /dev/null; done; mark accepted
await 300 0.1 "an empty queue" idle; mark end; all_completed {count}
"""

_ARRAY = """
mark begin
sbatch --parsable --array=1-{count} --output=/dev/null --wrap=hostname > /dev/null
await {deadline} 0.1 "an empty queue" idle; mark end; all_completed {count}
"""


def round_trip(bench: Bench) -> Samples:
    """One job alone, on a cluster that has run one."""
    with bench.cluster() as slurm:
        timed(slurm, _ROUND_TRIP.format(pause=0))  # the first job is another measure
        while True:
            marks = timed(slurm, _ROUND_TRIP.format(pause=a_moment()))
            yield {"round-trip": marks["end"] - marks["begin"]}


def single_jobs(bench: Bench) -> Samples:
    """200 jobs, submitted one by one."""
    while True:
        with bench.cluster() as slurm:
            marks = timed(slurm, _SINGLE_JOBS.format(count=200))
        yield {
            "sbatch-200-accepted": marks["accepted"] - marks["begin"],
            "sbatch-200": marks["end"] - marks["begin"],
        }


#: The largest array that slurm.conf allows where it says nothing, and what allows larger ones.
_LARGEST = 1000
_LARGE = {"25-arrays.conf": "MaxArraySize=10001\nMaxJobCount=20000\nMinJobAge=3600\n"}


def array(count: int) -> Callable[[Bench], Samples]:
    """An array of so many jobs."""

    def samples(bench: Bench) -> Samples:
        while True:
            with bench.cluster(conf=_LARGE if count > _LARGEST else {}) as slurm:
                marks = timed(slurm, _ARRAY.format(count=count, deadline=1800))
                size = memory(slurm, "slurmctld", "slurmd")
            yield {f"array-{count}": marks["end"] - marks["begin"], f"array-{count}-memory": size}

    return samples


def rest(bench: Bench) -> Samples:
    """Requests to slurmrestd over one connection, and over several at once."""
    with bench.cluster() as slurm:
        timed(slurm, _ARRAY.format(count=LISTED_JOBS, deadline=300))
        token, version = slurm.token(USER), slurm.rest(USER).version
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(Rest(slurm.rest_url(), USER, token, version=version)) for _ in range(THREADS)
            ]
            while True:
                yield {
                    f"rest-{path}-{len(used)}": _request_seconds(used, path)
                    for used in (clients[:1], clients)
                    for path in ("ping", "jobs")
                }


def _request_seconds(clients: Sequence[Rest], path: str) -> float:
    """Seconds of REQUESTS requests, shared by so many clients, each with one connection and one thread."""

    def ask(client: Rest) -> None:
        for _ in range(REQUESTS // len(clients)):
            client.get(path)

    for client in clients:
        client.get(path)  # opens the connection
    with ThreadPoolExecutor(len(clients)) as pool:
        began = time.perf_counter()
        list(pool.map(ask, clients))
        return time.perf_counter() - began
