"""A container and a cluster, timed from inside."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors
import requests

from slurm_testbed import engine
from slurm_testbed.container import ContainerSubstrate, SlurmContainer
from slurm_testbed.errors import EngineError
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm

USER = "alice"


@dataclass(frozen=True)
class Bench:
    """What the measures work on.

    Attributes:
        client: the engine.
        release: the release that is measured.
        image: its slurm-single-node.
        compressed: whether image sizes are also taken compressed.
    """

    client: docker.DockerClient
    release: Release
    image: str
    compressed: bool = False

    def bare_start(self) -> float:
        """Seconds of a `docker run … true`: created, started, waited for; removing it is not counted."""
        with self.container(entrypoint=["true"]) as (began, container):
            status = container.wait()["StatusCode"]
            seconds = time.time() - began
        if status:
            raise EngineError(f"a bare `true` in {self.image} exited with {status}")
        return seconds

    @contextlib.contextmanager
    def container(self, **options: Any) -> Iterator[tuple[float, Any]]:
        """A container as `docker run -d` makes it, and when that began; it is gone after the block."""
        name = f"slurm-bench-{secrets.token_hex(4)}"
        labels = {engine.LABEL_CLUSTER: name, engine.LABEL_OWNER: engine.owner()}
        try:
            began = time.time()
            container = self.client.containers.create(self.image, name=name, hostname=name, labels=labels, **options)
            container.start()
            yield began, container
        except (docker.errors.DockerException, requests.RequestException) as error:
            why = getattr(error, "explanation", None) or error
            raise EngineError(f"the engine failed with a container of {self.image}: {why}") from error
        finally:
            # By its name: an interrupt may come before we hold the container.
            with contextlib.suppress(docker.errors.NotFound):
                self.client.containers.get(name).remove(v=True, force=True)

    def from_start(self, script: str, **env: str) -> dict[str, float]:
        """Start a cluster and run a script in it at once; seconds from `docker run` to each of its marks."""
        with self.container(environment=env) as (began, container):
            marks = timed(Slurm(ContainerSubstrate(container)), script)
        return {name: at - began for name, at in marks.items()}

    def cluster(self, **options: Any) -> SlurmContainer:
        """A cluster that is ready when its block begins."""
        return SlurmContainer(self.release.version, image=self.image, **options)


#: `mark NAME` prints the time; `await SECONDS PAUSE WHAT COMMAND…` polls inside the container.
PRELUDE = r"""
set -euo pipefail
seen=
mark() { echo "@ $1 $EPOCHREALTIME"; }
exec {nap}<> <(:)   # reading from a pipe into which nobody writes is a pause without a process
await() {
  local end=$((SECONDS + $1)) pause=$2 what=$3; shift 3
  until "$@"; do
    if ((SECONDS >= end)); then echo "waited in vain for $what; last seen: ${seen:0:200}" >&2; exit 1; fi
    ! read -r -t "$pause" -u "$nap"   # nobody writes: it ends by its time-out
  done
}
over() {       # JOB: according to slurmctld
  seen=$(squeue --noheader --states=all --format=%T --jobs="$1" 2>&1)
  case $seen in '' | PENDING | CONFIGURING | RUNNING | COMPLETING) return 1 ;; esac
}
accounted() {  # JOB: according to slurmdbd
  seen=$(sacct --noheader --allocations --parsable2 --format=State --jobs="$1" 2>&1)
  case $seen in '' | PENDING | RUNNING) return 1 ;; esac
}
completed() { [ "$seen" = COMPLETED ] || { echo "job $1 is $seen, not COMPLETED" >&2; exit 1; }; }
idle() { seen=$(squeue --noheader --all --format='%i %T'); [ -z "$seen" ]; }
all_completed() {  # NUMBER: as many jobs are COMPLETED, and no other one is there
  seen=$(squeue --noheader --array --states=all --format=%T | sort | uniq -c | xargs)
  [ "$seen" = "$1 COMPLETED" ] || { echo "expected $1 COMPLETED, there are: $seen" >&2; exit 1; }
}
"""


def a_moment() -> float:
    """Seconds to wait for before a lone job, at random, less than one.

    slurmctld looks for such a job once a second. Samples that follow one another would all come at the same time
    after that look, people come at any.
    """
    return secrets.randbelow(1000) / 1000


def timed(slurm: Slurm, script: str) -> dict[str, float]:
    """Run a bash script in a cluster as a user, and return when it passed its marks.

    It waits inside the cluster, so that what an exec costs is not in the figures.

    Args:
        slurm: the cluster.
        script: may use the functions above.

    Raises:
        CommandError: it failed, with what it said.

    Returns:
        Seconds since the epoch, by the caller's clock, by name of the mark.
    """
    began = time.time()
    done = slurm.run(["bash", "-c", PRELUDE + script], user=USER, workdir=slurm.home(USER))
    marks = {name: float(at) for name, at in re.findall(r"^@ (\w+) ([\d.]+)$", done.stdout, re.MULTILINE)}
    return on_our_clock(marks, began, time.time())


def memory(slurm: Slurm, *daemons: str) -> float:
    """The memory of all processes of these daemons together, in MB, without programs and libraries (RssAnon, proc(5)).

    Args:
        slurm: the cluster, in one container.
        daemons: their names.
    """
    script = """
        cd /proc
        for daemon; do for process in [0-9]*; do
          [ "$(cat $process/comm 2> /dev/null)" != "$daemon" ] || sed -n 's/^RssAnon:[[:space:]]*//p' $process/status
        done; done | awk '{ kib += $1 } END { print kib * 1024 / 1e6 }'
    """
    return float(slurm.run(["bash", "-c", script, "memory", *daemons]).stdout)


def on_our_clock(marks: Mapping[str, float], began: float, ended: float) -> dict[str, float]:
    """Marks of a container by the caller's clock, which an engine on another machine need not share.

    Args:
        marks: seconds since the epoch, by the container's clock.
        began: when the caller asked for the command.
        ended: when the caller had its end.

    Example:
        >>> on_our_clock({"srun": 1.5}, 1.0, 2.0), on_our_clock({"srun": 71.5, "sacct": 72.5}, 1.0, 5.0)
        ({'srun': 1.5}, {'srun': 4.0, 'sacct': 5.0})
    """
    shared = all(began <= at <= ended for at in marks.values())
    shift = 0.0 if shared else ended - max(marks.values())
    return {name: at + shift for name, at in marks.items()}
