"""The service as a process: it listens, is alone on its database, and ends when it is asked to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from slurm_testbed import data
from slurm_testbed.readiness import wait_until

PACKAGE = data.images() / "app-sessions" / "app-sessions"
SECONDS = 60
Start = Callable[..., tuple[str, "subprocess.Popen[bytes]"]]


@pytest.fixture
def start(tmp_path: Path, applications: Path) -> Iterator[Start]:
    """Starts the service on a free port; returns its address, and the process."""
    with contextlib.ExitStack() as stack:

        def begin(**settings: str) -> tuple[str, subprocess.Popen[bytes]]:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            env = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(PACKAGE),
                "APP_SESSIONS_STATE_FOLDER": str(tmp_path),
                "APP_SESSIONS_APPLICATIONS_FILE": str(applications),
                "APP_SESSIONS_PORT": str(port),
                **settings,
            }
            log = stack.enter_context((tmp_path / "log").open("ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", "app_sessions.cli", "service"], env=env, stdout=log, stderr=log
            )
            stack.callback(process.wait, SECONDS)
            stack.callback(process.kill)

            def listens() -> bool | None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    return True
                return None

            def ended() -> str | None:
                return None if process.poll() is None else f"it ended with {process.returncode}"

            said = (tmp_path / "log").read_text
            wait_until(listens, "the service listening", deadline=SECONDS, give_up=ended, log=said)
            return f"http://127.0.0.1:{port}", process

        yield begin


def test_it_ends_when_it_is_asked_to_and_begins_anew(start: Start) -> None:
    address, process = start()
    assert requests.get(f"{address}/api/app/health", timeout=SECONDS).json()["database"]["kind"] == "SQLite"

    process.send_signal(signal.SIGTERM)

    assert process.wait(SECONDS) in {0, -signal.SIGTERM}
    again, _ = start()
    assert requests.get(f"{again}/api/app/health", timeout=SECONDS).status_code == 200


def test_second_one_on_the_same_database_says_so_and_ends(start: Start, tmp_path: Path, applications: Path) -> None:
    start()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PACKAGE),
        "APP_SESSIONS_STATE_FOLDER": str(tmp_path),
        "APP_SESSIONS_APPLICATIONS_FILE": str(applications),
    }
    done = subprocess.run(
        [sys.executable, "-m", "app_sessions.cli", "service"], env=env, capture_output=True, text=True, timeout=SECONDS
    )

    assert done.returncode == 2
    assert "another app-sessions serves" in done.stderr


def test_killed_one_leaves_a_database_that_the_next_one_takes(start: Start) -> None:
    _, process = start()
    process.kill()
    process.wait(SECONDS)
    again, _ = start()

    assert requests.get(f"{again}/api/app/health", timeout=SECONDS).status_code == 200
