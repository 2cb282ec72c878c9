"""The container engine: started and stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from slurm_testbed import engine
from slurm_testbed.engine import daemon
from slurm_testbed.engine.processes import end_process, live_process
from slurm_testbed.errors import EngineError, NotReadyError
from tests.unit.engine.conftest import Bench


def test_ensure_starts_dockerd_detached_and_stop_ends_it(bench: Bench) -> None:
    bench.add_dockerd()

    client = engine.ensure(machine=bench.machine)
    pid = bench.pid()

    assert client.ping(), "the engine does not answer"
    assert os.getsid(pid) == pid, "it has no session of its own, so Ctrl-C would end it"
    log = bench.machine.log.read_text()
    assert f"--config-file {bench.machine.state}/daemon.json" in log, f"it was started with {log}"
    pools = json.loads((bench.machine.state / "daemon.json").read_text())["default-address-pools"]
    assert pools == [{"base": "10.213.0.0/16", "size": 24}], f"the pools are {pools}"
    client.close()
    assert engine.stop(machine=bench.machine), "stop says that nothing of ours runs"
    assert live_process(pid) is None, f"process {pid} still runs"
    assert not engine.stop(machine=bench.machine), "a second stop says that it ended one"


def test_ensure_keeps_an_administrators_daemon_json(bench: Bench) -> None:
    bench.add_dockerd()
    (bench.machine.root / "etc/docker").mkdir(parents=True)
    (bench.machine.root / "etc/docker/daemon.json").write_text("{}")

    engine.ensure(machine=bench.machine).close()

    assert "--config-file" not in bench.machine.log.read_text(), bench.machine.log.read_text()


def test_ensure_twice_starts_one(bench: Bench) -> None:
    bench.add_dockerd()
    engine.ensure(machine=bench.machine).close()
    first = bench.pid()

    engine.ensure(machine=bench.machine).close()

    assert bench.pid() == first, f"a second one was started: {first}, then {bench.pid()}"


def test_ensure_after_an_unclean_end_removes_the_stale_pid_files(bench: Bench) -> None:
    bench.add_dockerd()
    run = bench.machine.root / "var/run"
    (run / "docker/containerd").mkdir(parents=True)
    # The number now belongs to this very test, which is no dockerd.
    (run / "docker.pid").write_text(str(os.getpid()))
    (run / "docker/containerd/containerd.pid").write_text("no number")

    client = engine.ensure(machine=bench.machine)

    assert client.ping(), "the engine does not answer"
    left = list(run.rglob("*.pid"))
    assert left == [], f"it left {left}"
    client.close()


LAYERS = [f"/var/lib/docker/overlay2/{'a' * 64}/merged", "/var/lib/docker/buildkit/executor/og7/rootfs"]
MOUNTS = f"""/dev/vda / ext4 rw,relatime 0 0
overlay {LAYERS[0]} overlay rw,relatime,lowerdir=/var/lib/docker/overlay2/l/X 0 0
overlay /home/somebody/merged overlay rw,relatime 0 0
overlay {LAYERS[1]} overlay rw,relatime 0 0
"""


def test_ensure_after_an_unclean_end_unmounts_the_layers_that_builds_left(bench: Bench) -> None:
    bench.add_dockerd()
    (bench.machine.root / "proc").mkdir()
    (bench.machine.root / "proc/mounts").write_text(MOUNTS)

    engine.ensure(machine=bench.machine).close()

    assert bench.commands.asked == [f"umount {' '.join(LAYERS)}"]
    assert "unmounting 2 image layers, left by an unclean end" in bench.said


def test_ensure_leaves_the_layers_of_containers_that_still_run(bench: Bench, tmp_path: Path) -> None:
    bench.add_dockerd()
    (bench.machine.root / "proc").mkdir()
    (bench.machine.root / "proc/mounts").write_text(MOUNTS)
    # The kernel keeps 15 characters of a program's name.
    shim = tmp_path / "containerd-shim-runc-v2"
    shim.symlink_to(shutil.which("sleep") or "")
    with subprocess.Popen([shim, "60"]) as process:
        try:
            engine.ensure(machine=replace(bench.machine, processes=lambda: [process.pid])).close()
        finally:
            process.kill()

    assert bench.commands.asked == []


def test_start_never_puts_a_second_dockerd_beside_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one that does not answer is waited for, not doubled."""
    bench.add_dockerd()
    engine.ensure(machine=bench.machine).close()
    monkeypatch.setattr(daemon, "START_SECONDS", 0.5)
    pid = bench.pid()
    (bench.machine.root / "var/run/docker.sock").unlink()

    with pytest.raises(NotReadyError, match=r"waited 0\.5 s for the container engine to answer"):
        engine.ensure(machine=replace(bench.machine, processes=lambda: [os.getpid(), pid]))

    assert bench.pid() == pid, "a second one was started"
    assert live_process(pid), "the first one was ended"


def test_dockerd_that_fails_is_told_at_once_with_its_log(bench: Bench) -> None:
    bench.add_dockerd()
    machine = replace(bench.machine, environ={**bench.machine.environ, "FAKE_MODE": "fails"})
    started = time.monotonic()

    with pytest.raises(NotReadyError) as caught:
        engine.ensure(machine=machine)

    assert time.monotonic() - started < daemon.START_SECONDS / 2, "it waited for a process that had ended"
    assert caught.value.last_state == "dockerd exited with 1", f"last state: {caught.value.last_state}"
    assert "operation not permitted" in caught.value.log, f"the log's tail is {caught.value.log!r}"
    assert not machine.record.exists(), "it is noted as started"


def test_start_with_systemd_leaves_it_to_systemd(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "START_SECONDS", 0.2)
    bench.add_dockerd()
    (bench.machine.root / "run/systemd/system").mkdir(parents=True)

    with pytest.raises(NotReadyError):
        engine.ensure(machine=bench.machine)

    assert bench.commands.asked == ["systemctl start docker"], f"it ran {bench.commands.asked}"


def test_stop_without_rights_says_who_may(bench: Bench) -> None:
    bench.add_dockerd()
    engine.ensure(machine=bench.machine).close()

    with pytest.raises(EngineError, match="only root ends it"):
        engine.stop(machine=replace(bench.machine, is_root=lambda: False))

    assert live_process(bench.pid()), "it was ended all the same"


def test_stop_leaves_a_process_that_is_not_the_one_it_started(bench: Bench) -> None:
    """The number was given again: same pid, another start time."""
    bench.machine.state.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        bench.machine.record.write_text(json.dumps({"pid": other.pid, "started": "1"}))

        stopped = engine.stop(machine=bench.machine)

        assert not stopped, "stop says that it ended one of ours"
        assert other.poll() is None, "it ended somebody else's process"
        other.kill()


def test_stop_of_a_process_that_ignores_sigterm_says_what_it_awaited() -> None:
    script = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stubborn:
        assert stubborn.stdout
        stubborn.stdout.readline()

        with pytest.raises(NotReadyError, match=f"process {stubborn.pid} to end after SIGTERM"):
            end_process(stubborn.pid, deadline=0.3)

        stubborn.send_signal(signal.SIGKILL)
