"""The measures of job observability, on its stack: what it costs nodes, and how soon it knows."""

from __future__ import annotations

import functools
import json
import statistics
import time
from datetime import UTC, datetime
from typing import Any

from slurm_testbed.bench.inside import USER, Bench
from slurm_testbed.bench.measure import Samples
from slurm_testbed.compose import SlurmCluster
from slurm_testbed.container import SlurmContainer
from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.images import image_name
from slurm_testbed.slurm import Slurm

#: Jobs on one node while its agent is watched, seconds of that, and the agent's own interval in seconds.
JOBS, SECONDS, INTERVAL = 50, 20, 10
#: Jobs that run when Prometheus asks.
SCRAPED = 1000
#: Tasks of an array whose events are counted.
ARRAY = 1000
#: Jobs share the node's processors: it has two.
_CONF = {"71-shared.conf": f"PartitionName=shared Nodes=ALL OverSubscribe=FORCE:{JOBS} State=UP\n"}

#: Runs a script so many times, as slurmd does, and as many times one that does nothing; prints seconds of one run each.
_SCRIPT = r"""
set -eu
folder=$(mktemp -d); mkdir "$folder/new"; trap 'rm -r "$folder"' EXIT
printf '#!/bin/sh\nexit 0\n' > "$folder/empty"; chmod 755 "$folder/empty"
export OBSERVABILITY_SPOOL=$folder
export SLURM_SCRIPT_CONTEXT=prolog_slurmd SLURM_JOB_ID=1 SLURM_JOB_NODELIST=n1 SLURMD_NODENAME=n1
for script in "$folder/empty" /etc/slurm/prolog.d/50-observability.sh; do
  began=$EPOCHREALTIME
  for _ in {1..100}; do env -u PATH "$script"; done
  ended=$EPOCHREALTIME
  echo $(((${ended/./} - ${began/./}) / 100))
done
[ "$(find "$folder/new" -type f | wc -l)" = 100 ]
"""

#: Clock ticks that the agent has had (proc(5), utime and stime), and how many make a second.
_AGENT = r"""
for process in /proc/[0-9]*; do
  if tr '\0' ' ' < $process/cmdline 2> /dev/null | grep -q 'slurm-observability agent'; then
    sed 's/.*) //' $process/stat
  fi
done | awk -v ticks="$(getconf CLK_TCK)" '{ sum += $12 + $13 } END { print sum / ticks }'
"""

#: Asks the service from within its container.
_COUNTS = """
import sys, urllib.request
request = urllib.request.Request("http://localhost:8080/v1/jobs/counts")
request.add_header("Authorization", "Bearer " + open("/var/lib/slurm-observability/reader.token").read().strip())
sys.stdout.write(urllib.request.urlopen(request).read().decode())
"""


def observability(bench: Bench) -> Samples:
    """Scripts, events, the agent and the service of one stack, one after another in each sample."""
    env = {"OBSERVABILITY_INTERVAL": str(INTERVAL)}
    with SlurmCluster(
        bench.release.version, stack="observability", nodes=1, cpus=2, memory=4000, cgroups=True, conf=_CONF, env=env
    ) as slurm:
        number = 0
        while True:
            number += 1
            yield {**_scripts(slurm), **_visible(slurm), **_share(slurm), **_scrape(slurm, number * 10**6)}


def array(bench: Bench) -> Samples:
    """An array in one container with service and agent, until the service shows the end of each task."""
    image = image_name("observability", bench.release.version)
    services = {
        "SLURM_TESTBED_ROLE": "cluster",
        "SLURM_TESTBED_SERVICES": "slurm-observability slurm-observability-agent",
    }
    while True:
        with SlurmContainer(image=image, accounting=False, env=services) as slurm:
            began = time.monotonic()
            slurm.sbatch(wrap="true", array=f"1-{ARRAY}", output="/dev/null", user=USER)
            slurm.wait_until(functools.partial(_all_ended, slurm), f"{ARRAY} jobs in the service", deadline=600)
            yield {"observability-array": time.monotonic() - began}


def _all_ended(slurm: Slurm) -> bool:
    counted = slurm.run(["python3", "-c", _COUNTS], check=False).stdout
    return bool(counted) and json.loads(counted)["states"] == {"completed": ARRAY}


def _scripts(slurm: SlurmCluster) -> dict[str, float]:
    empty, ours = slurm.run(["bash", "-c", _SCRIPT], host="n1").stdout.split()
    return {"observability-script": (int(ours) - int(empty)) / 1000}


def _visible(slurm: SlurmCluster) -> dict[str, float]:
    """From the record that a prolog left until the service shows the job."""
    job = slurm.sbatch(wrap="sleep 600", user=USER)
    found = slurm.wait_until(lambda: _known(slurm, job.id), f"job {job.id} in the service")
    seen = time.time()
    job.cancel()
    job.wait()
    return {"observability-visible": 1000 * (seen - datetime.fromisoformat(found["started_at"]).timestamp())}


def _known(slurm: SlurmCluster, job: int) -> dict[str, Any]:
    jobs = slurm.observability.api("GET", "v1/jobs", params={"state": "running"}).json()["jobs"]
    return next((one for one in jobs if one["job_id"] == job), {})


def _share(slurm: SlurmCluster) -> dict[str, float]:
    jobs = slurm.sbatch(
        wrap="sleep 600", array=f"1-{JOBS}", partition="shared", mem="20M", output="/dev/null", user=USER
    )
    slurm.wait_until(lambda: _running(slurm) == JOBS, f"{JOBS} jobs to run on a node", deadline=120)
    first, began = _ticks(slurm), time.monotonic()
    time.sleep(SECONDS)  # the length of what is measured, no readiness
    last, ended = _ticks(slurm), time.monotonic()
    jobs.cancel()
    slurm.wait_until(lambda: _running(slurm) == 0, "the jobs to end", deadline=120)
    return {"observability-agent": 100 * (last - first) / (ended - began)}


def _running(slurm: SlurmCluster) -> int:
    answer = slurm.observability.api("GET", "v1/jobs/counts").json()["states"]
    return int(answer.get("running", 0))


def _ticks(slurm: SlurmCluster) -> float:
    return float(slurm.run(["sh", "-c", _AGENT], host="n1").stdout)


def _scrape(slurm: SlurmCluster, first: int) -> dict[str, float]:
    """GET /metrics while so many jobs run, of which a node that is none of Slurm's tells."""
    now = datetime.now(UTC).isoformat()
    told = {"source": "prolog", "user": USER, "node_list": ["bench"], "timestamp": now}
    for job in range(first, first + SCRAPED):
        _tell(slurm, "events/job-started", {**told, "job_id": job}, f"bench-{job}-prolog")
    used = {"cpu_usage_percent": 50, "memory_usage_bytes": 2**20, "cpu_seconds": 1, "peak_memory_bytes": 2**20}
    jobs = [{"job_id": job, **used} for job in range(first, first + SCRAPED)]
    _tell(slurm, "samples", {"node": "bench", "timestamp": now, "job_count": SCRAPED, "jobs": jobs})
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        text = slurm.observability.api("GET", "metrics").text
        seconds.append(time.perf_counter() - began)
    shown = text.count("\nhpc_job_memory_usage_bytes{")
    for job in range(first, first + SCRAPED):
        ended = {
            "source": "epilog",
            "final_state": "completed",
            "node_list": ["bench"],
            "timestamp": now,
            "job_id": job,
        }
        _tell(slurm, "events/job-finished", ended, f"bench-{job}-epilog")
    if shown < SCRAPED:
        raise SlurmTestbedError(f"/metrics shows {shown} of {SCRAPED} jobs")
    return {"observability-scrape": 1000 * statistics.median(seconds)}


def _tell(slurm: SlurmCluster, path: str, body: dict[str, Any], key: str = "") -> None:
    headers = {"Idempotency-Key": key} if key else {}
    slurm.observability.api("POST", f"v1/{path}", role="agent", json=body, headers=headers)
