"""The start of the service's host makes the tokens, whenever an earlier start was cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_observability.service.tokens import Tokens

from slurm_testbed import data

IMAGE = data.images() / "observability"
SCRIPT = IMAGE / "rootfs/observability/usr/lib/slurm-testbed/prepare-observability"
COMMON = """
run=$PWD/run
on_tree() { false; }
say() { :; }
fail() { printf '%s\\n' "$1" >&2; exit 1; }
"""
#: Ends the start that has run a program, once.
CUT_OFF = """ || exit
if [ -e cut-off-at ] && [ "${0##*/}" = "$(< cut-off-at)" ] && [[ $* == *agent* ]]; then
  rm -f cut-off-at
  kill -KILL $PPID
  exit 1
fi
"""
PROGRAMS = {
    "setpriv": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',  # whose number it keeps
    "slurm-observability": f'{sys.executable} -c "from slurm_observability.cli import main; main()" "$@"',
    **{name: f'/usr/bin/{name} "$@"' for name in ("touch", "mv")},
}


def prepare(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script, as whoever runs the tests."""
    env = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(IMAGE / "slurm-observability"),
        "OBSERVABILITY_STATE_FOLDER": str(folder / "state"),
    }
    argv = ["bash", str(folder / "prepare")]
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("at", ["touch", "slurm-observability", "mv"])
def test_start_that_was_cut_off_is_made_up_for(tmp_path: Path, at: str) -> None:
    text = SCRIPT.read_text().replace(" -o observability -g observability", "")
    (tmp_path / "prepare").write_text(text.replace("/usr/lib/slurm-testbed/common.sh", str(tmp_path / "common.sh")))
    (tmp_path / "common.sh").write_text(COMMON)
    (tmp_path / "bin").mkdir()
    for name, script in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{script}{CUT_OFF}")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "cut-off-at").write_text(at)

    assert prepare(tmp_path).returncode == -signal.SIGKILL
    again = prepare(tmp_path)

    assert again.returncode == 0, again.stderr
    tokens = Tokens(tmp_path / "state/tokens.json")
    assert sorted(token.name for token in tokens.all()) == ["agent", "reader"]
    for role in ("agent", "reader"):
        found = tokens.find((tmp_path / f"state/{role}.token").read_text().strip())
        assert found is not None
        assert found.role.value == role
    assert prepare(tmp_path).returncode == 0
