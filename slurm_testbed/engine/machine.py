"""This machine, as far as an engine is found, installed and started on it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


def _run(argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, errors="replace"
    )


def _say(text: str) -> None:
    sys.stderr.write(f"slurm-testbed: {text}\n")
    sys.stderr.flush()


def _ask(question: str) -> bool:
    sys.stderr.write(f"slurm-testbed: {question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _os_release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _processes() -> Iterable[int]:
    return (int(path.name) for path in Path("/proc").glob("[0-9]*"))


@dataclass(frozen=True)
class Machine:
    """This machine, as far as an engine is found, installed and started on it; tests hand in another."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    run: Callable[[Sequence[str], Mapping[str, str] | None], subprocess.CompletedProcess[str]] = _run
    is_root: Callable[[], bool] = lambda: os.geteuid() == 0
    os_release: Callable[[], Mapping[str, str]] = _os_release
    processes: Callable[[], Iterable[int]] = _processes
    say: Callable[[str], None] = _say
    ask: Callable[[str], bool] = _ask

    @property
    def state(self) -> Path:
        """Folder of what we know about the engine that we started."""
        return self.root / "run/slurm-testbed"

    @property
    def record(self) -> Path:
        """What we started: `{"pid": …, "started": …}` or `{"unit": …}`."""
        return self.state / "engine.json"

    @property
    def log(self) -> Path:
        """Log of the dockerd that we started."""
        return self.state / "dockerd.log"

    @property
    def has_systemd(self) -> bool:
        """Whether systemd runs here, which then starts services."""
        return (self.root / "run/systemd/system").is_dir()

    @property
    def forbids(self) -> bool:
        """Whether the environment forbids to install and start an engine."""
        return self.environ.get("SLURM_TESTBED_INSTALL_ENGINE", "1").lower() in {"0", "no", "false"}

    @property
    def path(self) -> str:
        """PATH with the folders of administration, which `su` leaves out."""
        return f"{self.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"

    def which(self, program: str) -> str | None:
        """Path of a program, if it is installed."""
        return shutil.which(program, path=self.path)


THIS = Machine()
