"""The catalogue of faults that can be made on demand: seen, explained and cured."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from slurm_testbed.container import SlurmClient, SlurmContainer
from slurm_testbed.doctor import diagnose, diagnose_text
from slurm_testbed.errors import SlurmTestbedError, UsageError
from slurm_testbed.keys import Key
from slurm_testbed.slurm import Slurm


@dataclass(frozen=True)
class Step:
    """One thing that happens while a fault is reproduced: what is done, and what comes of it."""

    title: str
    text: str


@dataclass(frozen=True)
class Fault:
    """A fault that can be reproduced by name.

    Attributes:
        name: as in `invoke reproduce NAME`.
        summary: what is wrong, in a sentence.
        reproduce: makes it on clusters of a release, and yields the steps as they happen. It raises
            SlurmTestbedError if the fault does not show, is not diagnosed, or is not cured.
    """

    name: str
    summary: str
    reproduce: Callable[[str | None], Iterator[Step]]


_FAULTS: dict[str, Fault] = {}
#: A slurm.conf and a log beside the cluster's own.
_ALONE, _SAID = "/run/slurmctld/alone.conf", "/run/slurmctld/alone.log"


def fault(name: str, summary: str) -> Callable[[Callable[[str | None], Iterator[Step]]], Fault]:
    """Add a fault to the catalogue.

    Args:
        name: in words with hyphens.
        summary: what is wrong, in a sentence.
    """

    def add(reproduce: Callable[[str | None], Iterator[Step]]) -> Fault:
        _FAULTS[name] = Fault(name, summary, reproduce)
        return _FAULTS[name]

    return add


def catalogue() -> list[Fault]:
    """Every fault, by name."""
    return [_FAULTS[name] for name in sorted(_FAULTS)]


def find(name: str) -> Fault:
    """The fault of a name.

    Raises:
        UsageError: there is none; the message names the ones that there are.
    """
    if name not in _FAULTS:
        near = difflib.get_close_matches(name, _FAULTS, 1)
        raise UsageError(
            f"no fault {name}; there are {', '.join(sorted(_FAULTS))}",
            hint=f"did you mean {near[0]}?" if near else "",
        )
    return _FAULTS[name]


@fault("munge-mismatch", "a client has another munge key than the cluster")
def _munge_mismatch(release: str | None) -> Iterator[Step]:
    other = Key.munge()
    with SlurmContainer(release) as slurm, SlurmClient(slurm, munge_key=other) as client:
        yield Step("the cluster", f"{slurm.image} with one node, and a client with a munge key of its own")
        said = []
        for command in (["sinfo"], ["srun", "hostname"], ["sbatch", "--wrap=hostname"]):
            done = client.run(command, user="alice", check=False)
            if done.returncode == 0:
                raise SlurmTestbedError(f"{command[0]} worked with another munge key: the fault did not show")
            said.append(f"$ {' '.join(command)}\n{(done.stdout + done.stderr).strip()}\nexit status {done.returncode}")
        yield Step("what the client says", "\n".join(said))

        credential = client.run(["munge", "--no-input"]).stdout
        decoded = slurm.run(["unmunge"], stdin=credential, check=False)
        text = f"$ unmunge\n{(decoded.stdout + decoded.stderr).strip()}\nexit status {decoded.returncode}"
        yield Step("a credential of the client, decoded on the controller", text)

        diagnosis = diagnose(slurm, [(client.substrate, client.name)], said="\n".join(said))
        if diagnosis.names[:1] != ["munge-mismatch"]:
            raise SlurmTestbedError(f"the diagnosis does not name it: {diagnosis}")
        yield Step("the diagnosis", str(diagnosis))

        client.substrate.put(client.name, {"/etc/munge/munge.key": slurm.munge_key()}, mode=0o400, owner="munge:munge")
        client.substrate.service(client.name, "munged", "stop")
        client.substrate.service(client.name, "munged", "start")
        cured = slurm.wait_until(lambda: _worked(client), "the client to work with the cluster's key", deadline=30)
        yield Step("the cure: the cluster's key in the client, munged restarted", f"$ srun hostname\n{cured}")


@fault("no-tres", "slurmctld starts for the first time while slurmdbd is away")
def _no_tres(release: str | None) -> Iterator[Step]:
    with SlurmContainer(release) as slurm:
        yield Step("the cluster", f"{slurm.image} with one node")
        for daemon in ("slurmctld", "slurmdbd"):
            slurm.substrate.service(slurm.controller, daemon, "stop")
        slurm.run(["find", "/var/spool/slurmctld", "-mindepth", "1", "-delete"])
        yield Step("the fault", "slurmdbd is stopped, and slurmctld has no state: as on a new controller")

        # Releases since 24.11 do not end, but try again and again. Who enforces associations is told of them instead.
        start = (
            'grep -v ^AccountingStorageEnforce /etc/slurm/slurm.conf > "$1"; slurmctld -D -f "$1" > "$2" 2>&1 & echo $!'
        )
        process = slurm.run(["sh", "-c", start, "sh", _ALONE, _SAID]).stdout.strip()
        diagnosis = slurm.wait_until(
            lambda: found if (found := diagnose_text(slurm.read(_SAID))).names else None,
            "slurmctld to say what it lacks",
            deadline=60,
            state=lambda: slurm.read(_SAID)[-1000:],
        )
        slurm.run(["sh", "-c", 'kill "$1"; rm "$2" "$3"', "sh", process, _ALONE, _SAID], check=False)
        said = "\n".join(line for finding in diagnosis.findings for line in finding.evidence)
        yield Step("what slurmctld says", f"$ slurmctld -D\n{said}")
        if diagnosis.names != ["no-tres"]:
            raise SlurmTestbedError(f"the diagnosis does not name it: {diagnosis}")
        yield Step("the diagnosis", str(diagnosis))

        for daemon in ("slurmdbd", "slurmctld"):
            slurm.substrate.service(slurm.controller, daemon, "start")
        cured = slurm.wait_until(lambda: _worked(slurm), "the cluster to work", deadline=60)
        yield Step("the cure: slurmdbd first, then slurmctld", f"$ srun hostname\n{cured}")


def _worked(client: Slurm | SlurmClient) -> str:
    done = client.run(["srun", "hostname"], user="alice", check=False)
    return done.stdout if done.returncode == 0 else ""
