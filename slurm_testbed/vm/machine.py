"""The virtual machine from its start to its end, as one more engine."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import docker
import docker.errors
import requests

from slurm_testbed import engine
from slurm_testbed.children import sigterm_raises
from slurm_testbed.engine.processes import live_process
from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.readiness import wait_until
from slurm_testbed.vm import cache, calibration, disk, qemu, recipe, tools
from slurm_testbed.vm.record import Record, boot, folder, forget
from slurm_testbed.vm.ssh import Connection, free_port

#: How slow a machine may be until it is measured, by its accelerator.
ASSUMED_SPEED = {"kvm": 2.0, "tcg": 40.0}
#: Seconds of an ordinary machine.
BOOT_SECONDS = 10.0
SSH_SECONDS = 3.0
ENGINE_SECONDS = 8.0
REQUEST_SECONDS = 20.0
_STOP_SECONDS = 90.0
#: Label of the guest's engine: which machine it is in.
LABEL_VM = f"{engine.LABEL}.vm"
#: Label of an engine: how many times slower than an ordinary machine it is.
LABEL_SPEED = f"{engine.LABEL}.speed"
#: The NFS export of the guest, as a container in it reaches it.
NFS_EXPORT = "127.0.0.1:/srv/nfs"
_STARTS = 3


@dataclass(frozen=True)
class VirtualMachine:
    """A virtual machine that is ready, and its engine.

    Attributes:
        record: how it was started.

    Example:
        >>> with vm.running() as machine:  # doctest: +SKIP
        ...     machine.client().info()["CgroupVersion"]
        '2'
    """

    record: Record

    @property
    def connection(self) -> Connection:
        """The way to the guest."""
        return Connection(folder(), self.record.port)

    @property
    def docker_host(self) -> str:
        """The address of its engine, for DOCKER_HOST."""
        return f"unix://{self.connection.engine_socket}"

    @property
    def speed(self) -> float:
        """How many times slower than this machine it is."""
        return self.record.speed

    def environment(self) -> dict[str, str]:
        """The environment in which docker, and all that we do, speak to its engine."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        return {**env, "DOCKER_HOST": self.docker_host, "SHARED_NFS": NFS_EXPORT}

    def client(self) -> docker.DockerClient:
        """A client of its engine."""
        return docker.DockerClient(base_url=self.docker_host, timeout=int(REQUEST_SECONDS * max(self.speed, 1)))

    def reach(self, port: int) -> tuple[str, int]:
        """Where this machine reaches a port that a container publishes there."""
        return "127.0.0.1", self.connection.forward(port)


def find() -> VirtualMachine | None:
    """The machine that runs and is ready, whoever started it."""
    record = Record.load()
    return VirtualMachine(record) if record and record.speed and record.lives else None


def start(*, say: Callable[[str], None] = engine.THIS.say) -> VirtualMachine:
    """The machine that runs, else a new one; built first, if it is not in the cache. Never a second one.

    It stays until `stop`, also where one that runs had been started for a while.

    Args:
        say: told what takes time.

    Raises:
        BuildError: it cannot be built.
        NotReadyError: it was started, but did not get ready in time.
        SlurmTestbedError: it ended while it started, or there is none for this processor.

    Example:
        >>> start().client().info()["CgroupVersion"]  # doctest: +SKIP
        '2'
    """
    with sigterm_raises(), cache.locked():
        return VirtualMachine(_find_or_start(say).record.kept())


def stop() -> bool:
    """End the machine; what its engine has of images stays for the next one.

    Returns:
        Whether one ran.
    """
    with cache.locked():
        return _end()


@contextlib.contextmanager
def running(*, say: Callable[[str], None] = engine.THIS.say) -> Iterator[VirtualMachine]:
    """A machine for a while: one of `start` stays, one that had to be started ends with the last of those who use it.

    Raises:
        SlurmTestbedError: as `start` does.
    """
    with sigterm_raises(), (folder() / "users").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with cache.locked():
            machine = _find_or_start(say)
        try:
            yield machine
        finally:
            _leave(machine, users)


def _leave(machine: VirtualMachine, users: IO[bytes]) -> None:
    """End a machine that is not to stay, unless somebody else uses it, who then does."""
    with cache.locked():
        record = Record.load()
        if record is None or record.id != machine.record.id or record.stays:
            return
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(users, fcntl.LOCK_UN)  # now, so that who leaves next does not take us for a user
        else:
            _end()


# --- parts of the start ----------------------------------------------------------------------------------


def _find_or_start(say: Callable[[str], None]) -> VirtualMachine:
    if machine := find():
        if machine.record.image == recipe.image_digest():
            return machine
        say("the virtual machine that runs is made of something else than asked now: starting another")
    Connection(folder(), 0).check()  # before minutes go into what nobody could reach
    _end()
    programs = tools.get(say)
    image = disk.get(programs, say)
    try:
        return _start(programs, image, say)
    except BaseException:
        _end()
        raise


def _start(programs: tools.Tools, image: disk.Image, say: Callable[[str], None]) -> VirtualMachine:
    accelerator, why = qemu.probe(programs, image)
    how = "with KVM" if accelerator == "kvm" else f"emulated, some 25 times slower than with KVM ({why})"
    say(f"starting the virtual machine, {how}")
    begun = time.monotonic()
    process, record = _spawn(programs, image, accelerator)
    machine = VirtualMachine(record)
    _await_boot(machine, process)
    _await_engine(machine)
    answered = time.monotonic() - begun
    speed = _measure(machine, programs)
    _label(machine, speed)
    say(f"the virtual machine's engine answers after {answered:.0f} s; it is {speed:g} times slower than this machine")
    return VirtualMachine(record.ready(speed))


def _spawn(
    programs: tools.Tools, image: disk.Image, accelerator: qemu.Accelerator
) -> tuple[subprocess.Popen[bytes], Record]:
    connection = Connection(folder(), free_port())
    credential = connection.make_key()
    data = _data_disk(programs)
    for _ in range(_STARTS):
        argv = qemu.command(
            programs,
            image,
            accelerator,
            data=data,
            console=folder() / "console.log",
            port=connection.port,
            credential=credential,
        )
        process = qemu.spawn(argv, programs, folder(), folder() / "qemu.log")
        living = live_process(process.pid)
        record = Record(
            id=secrets.token_hex(8),
            pid=process.pid,
            started=living[1] if living else "",
            boot=boot(),
            port=connection.port,
            accelerator=accelerator,
            image=image.digest,
            stays=False,
        )
        record.save()
        if not _port_was_taken(process):
            return process, record
        connection = dataclasses.replace(connection, port=free_port())
    raise SlurmTestbedError(f"QEMU found no free port in {_STARTS} starts: {_log('qemu.log')}")


def _port_was_taken(process: subprocess.Popen[bytes]) -> bool:
    """Somebody may have got it between our look and QEMU's; QEMU ends at once then."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
        return "host forwarding rule" in _log("qemu.log")
    return False


def _data_disk(programs: tools.Tools) -> Path:
    """The disk of the engine's images; made anew when this machine went down under the one before.

    Its writes do not wait for the real disk, so what was on it then cannot be relied on.
    """
    path, dirty = cache.folder() / "data.ext4", _dirty()
    if not path.exists() or (dirty.exists() and dirty.read_text() != boot()):
        disk.make_filesystem(programs, path, disk.DATA_SIZE, label="docker")
    dirty.write_text(boot())
    return path


def _dirty() -> Path:
    """Says, while the data disk is in use, since which start of this machine."""
    return cache.folder() / "data.boot"


def _log(name: str) -> str:
    path = folder() / name
    return path.read_text(errors="replace").strip() if path.exists() else ""


def _await_boot(machine: VirtualMachine, process: subprocess.Popen[bytes]) -> None:
    speed = ASSUMED_SPEED[machine.record.accelerator]

    def ended() -> str | None:
        code = process.poll()
        return None if code is None else f"QEMU ended with {code}: {_log('qemu.log')[-500:]}"

    wait_until(
        machine.connection.answers,
        "the virtual machine's SSH to answer",
        deadline=BOOT_SECONDS,
        speed=speed,
        give_up=ended,
        log=lambda: _log("console.log"),
        hint=f"its logs are in {folder()}",
    )
    machine.connection.open(timeout=SSH_SECONDS * speed)


def _await_engine(machine: VirtualMachine) -> None:
    def answers() -> bool:
        try:
            with contextlib.closing(machine.client()) as client:
                return bool(client.ping())
        except (docker.errors.DockerException, requests.RequestException, OSError):
            return False

    speed = ASSUMED_SPEED[machine.record.accelerator]

    def journal() -> str:
        return machine.connection.run("journalctl --unit docker --no-pager --lines 20", timeout=SSH_SECONDS * speed)

    wait_until(answers, "the virtual machine's engine to answer", deadline=ENGINE_SECONDS, speed=speed, log=journal)


def _measure(machine: VirtualMachine, programs: tools.Tools) -> float:
    timeout = calibration.SECONDS * ASSUMED_SPEED[machine.record.accelerator]
    return calibration.measure(
        lambda work: machine.connection.run("sh -s", stdin=work, timeout=timeout), programs.command("usr/bin/dash")
    )


def _label(machine: VirtualMachine, speed: float) -> None:
    """Let the engine say itself which machine it is in and how slow: whoever speaks to it can ask."""
    path = "/etc/docker/daemon.json"
    settings: dict[str, object] = json.loads((recipe.GUEST / "files" / path.lstrip("/")).read_text())
    settings["labels"] = [f"{LABEL_VM}={machine.record.id}", f"{LABEL_SPEED}={speed:g}"]
    timeout = SSH_SECONDS * ASSUMED_SPEED[machine.record.accelerator]
    machine.connection.run(f"cat > {path} && systemctl reload docker", stdin=json.dumps(settings), timeout=timeout)

    def labelled() -> bool:
        with contextlib.closing(machine.client()) as client:
            return place_of(client).speed == speed

    wait_until(labelled, "the virtual machine's engine to carry its labels", deadline=ENGINE_SECONDS, speed=speed)


def _end() -> bool:
    """End what runs, in order if it can be, and forget it."""
    record = Record.load()
    if record is None:
        forget()  # the key of a start that was cut short
        return False
    lived = record.lives
    if lived and record.speed:
        _power_off(VirtualMachine(record))
    if record.of_this_boot:
        _dirty().unlink(missing_ok=True)  # whatever ended it: this machine has all that it wrote
    with contextlib.suppress(SlurmTestbedError):  # no ssh here: then nothing was connected
        Connection(folder(), record.port).close()
    record.end()
    forget()
    return lived


def _power_off(machine: VirtualMachine) -> None:
    """Ask the guest to go down, so that its disk is whole; one that does not answer is ended all the same."""
    try:
        machine.connection.run("systemctl poweroff", timeout=SSH_SECONDS * max(machine.speed, 2))
        wait_until(
            lambda: not machine.record.lives, "the virtual machine to go down", deadline=_STOP_SECONDS, speed=1.0
        )
    except SlurmTestbedError as error:
        engine.THIS.say(f"the virtual machine does not go down by itself ({error.message}): ending it")


# --- asked of an engine ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where an engine runs, as far as it matters to those who wait for it.

    Attributes:
        speed: how many times slower than an ordinary machine it is.
        machine: our virtual machine, if it is in it.
    """

    speed: float = 1.0
    machine: VirtualMachine | None = None


def place_of(client: docker.DockerClient) -> Place:
    """Where an engine runs, by its labels: an engine without ours is an ordinary machine's.

    Args:
        client: the engine.

    Example:
        >>> place_of(engine.connect()).speed >= 1
        True
    """
    labels = dict(label.partition("=")[::2] for label in client.info().get("Labels") or [])
    machine = find() if LABEL_VM in labels else None
    ours = machine if machine and machine.record.id == labels[LABEL_VM] else None
    return Place(float(labels.get(LABEL_SPEED, 1)), ours)
