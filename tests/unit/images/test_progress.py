"""Images: what a build shows while it runs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_testbed.images.progress import runner
from tests.unit.images.conftest import STEP

PROGRESS = f"""\
#1 [internal] load build definition from Dockerfile
#1 DONE 0.1s
#2 [os 2/3] COPY --link build/os-setup /tmp/os-setup
#2 CACHED
#3 [slurm-client base 1/1] RUN --mount=type=cache,target=/var <<'SH' (set -eu...)
#3 1.0 Fetched
#3 DONE 12.3s
#4 [slurm-client] exporting to image
#4 DONE 0.0s
#5 {STEP}
#5 ERROR: exit code: 1
"""


def test_build_without_terminal_says_a_line_per_step_that_took_time(
    program: Callable[[str, str], Path], tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "progress").write_text(PROGRESS)
    docker_ = program("docker", f'[ "$1" = --progress=plain ] && cat {tmp_path}/progress >&2; exit 3')

    code, output = runner(said.append)([str(docker_)], os.environ, tmp_path)

    assert (code, output) == (3, PROGRESS.rstrip("\n"))
    assert said == [
        "   12.3 s  [slurm-client base 1/1] RUN",
        "   failed  [slurm-client source 2/2] RUN /build/fetch-source",
    ]


def test_build_with_plain_progress_passes_every_line_on(
    program: Callable[[str, str], Path], tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDKIT_PROGRESS", "plain")
    docker_ = program("docker", "echo one; echo two >&2")

    runner(said.append)([str(docker_)], os.environ, tmp_path)

    assert said == ["one", "two"]


def test_build_on_a_terminal_shows_bakes_own_progress_and_keeps_its_end(
    program: Callable[[str, str], Path],
) -> None:
    docker_ = program("docker", "test -t 2 && printf 'a\\033[1Ab\\n' >&2; exit 4")
    code = (
        "import os; from pathlib import Path; from slurm_testbed.images.progress import runner, to_stderr\n"
        f"print(runner(to_stderr)(['{docker_}'], os.environ, Path('.')))"
    )
    screen, theirs = pty.openpty()

    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    shown = os.read(screen, 1000)
    os.close(screen)

    assert done.stdout.strip() == str((4, "a\x1b[1Ab\n"))
    assert shown == b"a\x1b[1Ab\r\n"
