"""Start an engine of our own where there is none, and end it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import docker
import filelock
import tenacity

from slurm_testbed.engine.connection import chosen_endpoint, connect
from slurm_testbed.engine.install import install
from slurm_testbed.engine.machine import THIS, Machine
from slurm_testbed.engine.processes import end_process, live_process, running_dockerd
from slurm_testbed.errors import EngineError, EngineNotFoundError, NotReadyError, tail

START_SECONDS = 60.0
STOP_SECONDS = 60.0
INSTALL_SECONDS = 900.0
#: A /24 for each network: the engine's own pools are exhausted after about 29 networks.
ADDRESS_POOLS = {"default-address-pools": [{"base": "10.213.0.0/16", "size": 24}]}

#: Where dockerd mounts layers, and where BuildKit mounts the root of a build step.
_LAYERS = ("/var/lib/docker/overlay2/", "/var/lib/docker/buildkit/executor/")


def ensure(*, interactive: bool | None = None, machine: Machine = THIS) -> docker.DockerClient:
    """Connect to the engine; where none answers, install and start one on Debian or Ubuntu as root.

    An engine that DOCKER_HOST or a docker context names is never replaced by another one, and
    SLURM_TESTBED_INSTALL_ENGINE=0 forbids to install or start any.

    Args:
        interactive: ask before packages are installed; by default on a terminal only.
        machine: where to look, install and start.

    Raises:
        EngineNotFoundError: none answers and none may or can be installed.
        NotReadyError: the engine was started, but did not answer in time.

    Example:
        >>> ensure().ping()
        True
    """
    try:
        return connect(machine=machine)
    except EngineNotFoundError as error:
        if machine.forbids:
            hint = "SLURM_TESTBED_INSTALL_ENGINE=0 forbids to install or start one here"
            raise EngineNotFoundError(error.message, hint=hint) from None
        if not machine.is_root() or chosen_endpoint(machine):
            raise
    with _lock(machine):
        # Whoever held the lock may have started one.
        with contextlib.suppress(EngineNotFoundError):
            return connect(machine=machine)
        if not machine.which("dockerd"):
            install(machine, interactive)
        _start(machine)
    return connect(machine=machine)


@contextlib.contextmanager
def _lock(machine: Machine) -> Iterator[None]:
    machine.state.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(machine.state / "engine.lock", timeout=INSTALL_SECONDS)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise NotReadyError(
            "another process to install or start the container engine",
            deadline=INSTALL_SECONDS,
            last_state=f"{lock.lock_file} is locked",
            hint=f"see who holds it: fuser {lock.lock_file}",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _start(machine: Machine) -> None:
    """Start the engine and wait until it answers; never beside another dockerd."""
    if pid := running_dockerd(machine):
        machine.say(f"dockerd runs already (process {pid}); waiting for its answer")
        _await_answer(machine, lambda: "" if live_process(pid) else "it ended", log="")
        return
    machine.say("starting the container engine (invoke engine --stop ends it)")
    if machine.has_systemd:
        done = machine.run(["systemctl", "start", "docker"], None)
        if done.returncode:
            raise EngineError(
                f"systemd could not start docker: {tail(done.stderr, 5)}", hint="see: journalctl -u docker"
            )
        _write_record(machine, {"unit": "docker"})
        _await_answer(machine, lambda: "", log="")
        return
    _remove_stale_pid_files(machine)
    _unmount_stale_layers(machine)
    daemon = _spawn_dockerd(machine)
    process = live_process(daemon.pid)
    _write_record(machine, {"pid": daemon.pid, "started": process[1] if process else ""})

    def ended() -> str:
        return f"dockerd exited with {daemon.returncode}" if daemon.poll() is not None else ""

    try:
        _await_answer(machine, ended, log=str(machine.log))
    except BaseException:
        # Nobody can use it: leave nothing half started behind, also on Ctrl-C.
        end_process(daemon.pid, deadline=STOP_SECONDS)
        machine.record.unlink(missing_ok=True)
        raise


def _spawn_dockerd(machine: Machine) -> subprocess.Popen[bytes]:
    argv = [machine.which("dockerd") or "dockerd"]
    if not (machine.root / "etc/docker/daemon.json").exists():
        config = machine.state / "daemon.json"
        config.write_text(json.dumps(ADDRESS_POOLS))
        argv += ["--config-file", str(config)]
    # A session of its own: Ctrl-C and the end of the terminal do not reach it.
    with machine.log.open("wb") as log:
        return subprocess.Popen(
            argv,
            env={**machine.environ, "PATH": machine.path},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _remove_stale_pid_files(machine: Machine) -> None:
    """Remove what an unclean end left: another process may have that number now, and block the start."""
    for name, daemon in (("docker.pid", "dockerd"), ("docker/containerd/containerd.pid", "containerd")):
        path = machine.root / "var/run" / name
        try:
            process = live_process(int(path.read_text()))
        except FileNotFoundError:
            continue
        except ValueError:
            process = None
        if process is None or process[0] != daemon:
            machine.say(f"removing {path}, left by an unclean end")
            path.unlink(missing_ok=True)


def _unmount_stale_layers(machine: Machine) -> None:
    """Unmount what killed builds left: a start copies all mounts, and 700 of them make it half as long again."""
    processes = filter(None, map(live_process, machine.processes()))
    if any(name.startswith("containerd-shim") for name, _ in processes):
        return  # dockerd will take its containers over, with their mounts
    try:
        lines = (machine.root / "proc/mounts").read_text().splitlines()
    except OSError:
        return
    # Device, folder, type, options: proc_mounts(5).
    mounts = [fields[1] for fields in map(str.split, lines) if fields[2] == "overlay"]
    stale = [path for path in mounts if path.startswith(_LAYERS)]
    if stale:
        machine.say(f"unmounting {len(stale)} image layers, left by an unclean end")
        done = machine.run(["umount", *stale], None)
        if done.returncode:
            machine.say(f"some stay, and make containers start later: {tail(done.stderr, 3)}")


def _await_answer(machine: Machine, ended: Callable[[], str], *, log: str) -> None:
    """Wait until an engine answers at the usual sockets, or until its process has ended."""

    def attempt() -> None:
        gone = ended()  # asked first: it may answer and end in between
        try:
            connect(machine=machine).close()
        except EngineNotFoundError:
            if gone:
                raise _GoneError(gone) from None
            raise

    try:
        tenacity.Retrying(
            stop=tenacity.stop_after_delay(START_SECONDS),
            wait=tenacity.wait_fixed(0.1),
            retry=tenacity.retry_if_exception_type(EngineNotFoundError),
            reraise=True,
        )(attempt)
    except (EngineNotFoundError, _GoneError) as error:
        text = Path(log).read_text(errors="replace") if log else ""
        raise NotReadyError(
            "the container engine to answer",
            deadline=START_SECONDS,
            last_state=str(error),
            log=tail(text, 15),
            hint="dockerd needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN; the log says what it lacks"
            if log
            else "look at that daemon's log",
        ) from None


class _GoneError(Exception):
    """The daemon ended while its answer was awaited."""


def _write_record(machine: Machine, record: Mapping[str, object]) -> None:
    machine.state.mkdir(parents=True, exist_ok=True)
    machine.record.write_text(json.dumps(record) + "\n")


def stop(*, machine: Machine = THIS) -> bool:
    """End the engine that we started; any other one stays.

    Args:
        machine: where it was started.

    Returns:
        Whether there was one of ours to end.

    Raises:
        EngineError: only root may end it.
        NotReadyError: it did not end in time.

    Example:
        >>> stop(machine=Machine(root=Path("/nowhere")))
        False
    """
    if not machine.record.exists():
        return False
    if not machine.is_root():
        raise EngineError("the engine that we started runs as root, and only root ends it", hint="use sudo")
    with _lock(machine):
        try:
            record = json.loads(machine.record.read_text())
        except FileNotFoundError:
            return False
        if unit := record.get("unit"):
            # The socket would start the service again.
            done = machine.run(["systemctl", "stop", f"{unit}.socket", f"{unit}.service"], None)
            if done.returncode:
                raise EngineError(f"systemd could not stop {unit}: {tail(done.stderr, 5)}")
            ours = True
        else:
            process = live_process(record["pid"])
            ours = process is not None and process[1] == record["started"]
            if ours:
                end_process(record["pid"], deadline=STOP_SECONDS)
        machine.record.unlink(missing_ok=True)
    return ours
