"""What a person can ask for: `invoke --list` shows it, `invoke --help TASK` explains one."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import invoke.tasks
from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task
from rich.console import Console
from rich.table import Table

from slurm_testbed import engine as engines
from slurm_testbed.errors import SlurmTestbedError

ROOT = Path(__file__).resolve().parent
#: Where the caller of ./inv stood; relative paths in arguments are meant from there.
CALLER = Path(os.environ.get("SLURM_TESTBED_CALLER_DIR") or Path.cwd())


def task(**options: Any) -> Callable[[Callable[..., None]], Task[Any]]:
    """Make a task that ends with one message, and the error's exit status, where we can explain the failure.

    SLURM_TESTBED_TRACEBACK=1 shows the traceback as well.
    """

    def decorate(body: Callable[..., None]) -> Task[Any]:
        @functools.wraps(body)
        def explained(*args: Any, **kwargs: Any) -> None:
            try:
                body(*args, **kwargs)
            except SlurmTestbedError as error:
                if os.environ.get("SLURM_TESTBED_TRACEBACK") == "1":
                    raise
                raise Exit(f"{body.__name__}: {error}", code=error.exit_status) from None

        made: Task[Any] = invoke.tasks.task(**options)(explained)
        return made

    return decorate


# --- the engine ------------------------------------------------------------------------------------------


@task(help={"stop": "end the engine that we started; any other one stays"})
def engine(_: Context, stop: bool = False) -> None:
    """
    Say what the container engine is and has, and what each lack costs.

    Where there is none, one is installed and started on Debian or Ubuntu as root. On a terminal it asks
    before it installs; SLURM_TESTBED_INSTALL_ENGINE=0 forbids both.

    Example: invoke engine
    """
    if stop:
        print("the engine that we started has ended" if engines.stop() else "no engine of ours runs")
        return
    table = Table("", "what", "found", "what the lack costs", box=None, pad_edge=False)
    for finding in engines.examine(engines.ensure()):
        mark = "[green]ok[/]" if finding.ok else "[yellow]--[/]"
        table.add_row(mark, finding.name, finding.value, finding.cost)
    Console().print(table)


# --- build -----------------------------------------------------------------------------------------------


# --- test, check, rows, matrix ---------------------------------------------------------------------------


def _shell_scripts() -> list[str]:
    """Every file of the repository whose first line calls a POSIX shell or bash."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise SlurmTestbedError(
            f"git does not list the files of {ROOT}: {listed.stderr.strip()}",
            hint="check a clone of the repository",
        )
    paths = (ROOT / name for name in sorted(filter(None, listed.stdout.split("\0"))))
    return [str(path.relative_to(ROOT)) for path in paths if path.is_file() and _calls_a_shell(path)]


def _calls_a_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(re.match(rb"#!\s*\S*/(env\s+)?(ba|da)?sh\b", file.readline(200)))


def _checks() -> dict[str, list[str]]:
    workflows = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(".github/workflows/*.yml"))
    return {
        "ruff": ["ruff", "check", "."],
        "format": ["ruff", "format", "--check", "."],
        "types": ["mypy"],
        "tasks": ["mypy", "tasks.py"],
        "layers": ["lint-imports", "--no-logo"],
        "shell": ["shellcheck", "--external-sources", *_shell_scripts()],
        "yaml": ["yamllint", "--strict", "."],
        "workflows": ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows],
    }


@task(help={"only": "one of them by name: ruff, format, types, tasks, layers, shell, yaml, workflows"})
def check(_: Context, only: str = "") -> None:
    """
    Check style, types, layers, shell scripts, YAML and workflows; needs no engine.

    Example: invoke check --only types
    """
    checks = _checks()
    if only and only not in checks:
        raise Exit(f"check: no check {only}; there are {', '.join(checks)}", code=2)
    # The tools stand beside this Python, also where its environment is not activated.
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    failed = []
    for name, argv in checks.items():
        if only not in {"", name}:
            continue
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        print(f"{name}: {'failed' if done.returncode else 'ok'}", flush=True)
        if done.returncode:
            failed.append(name)
            print((done.stdout + done.stderr).strip(), flush=True)
    if failed:
        raise Exit(f"check: failed: {', '.join(failed)}", code=1)


# --- up, down, status, logs, shell -----------------------------------------------------------------------


# --- reproduce, bench, keys ------------------------------------------------------------------------------


# --- clean -----------------------------------------------------------------------------------------------


@task(help={"images": "remove the images that we built as well"})
def clean(_: Context, images: bool = False) -> None:
    """
    Remove every container, network and volume of ours, whoever started it.

    Example: invoke clean --images
    """
    client = engines.connect()
    removed = engines.sweep(client, everything=True)
    if images:
        removed += engines.remove_images(client)
    print("\n".join(f"removed {what}" for what in removed) or "nothing of ours is there")


ns = Collection(engine, check, clean)
