"""What a cluster shares with this machine: folders under both their names, and a Python."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from slurm_testbed.share import python_folders, shared_paths, this_python

ROOT = Path(__file__).resolve().parents[2]


def test_link_is_shared_under_its_name_and_what_it_resolves_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    assert shared_paths([tmp_path / "link", tmp_path / "real"]) == [str(tmp_path / "real"), str(tmp_path / "link")]


def test_python_of_the_system_shares_its_modules_but_not_the_system(tmp_path: Path) -> None:
    environment, modules = tmp_path / "venv", tmp_path / "lib/python3.13"
    modules.mkdir(parents=True)
    more = [modules, environment / "lib", tmp_path / "missing"]

    assert python_folders(environment, Path("/usr"), more) == [environment, modules]
    assert python_folders(Path("/usr"), Path("/usr"), more) == [modules]


def test_everything_that_this_python_runs_from_is_shared(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    code = (
        "import sys; from slurm_testbed.share import shared_paths, this_python;"
        "print(*shared_paths(this_python()), '', *sys.path[1:], sep='\\n')"
    )
    program = tmp_path / "venv/bin/python"
    done = subprocess.run([program, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    shared, modules = (list(map(Path, part.split())) for part in done.stdout.split("\n\n"))

    # Each link on the way to the interpreter, as a host follows it.
    for path in (program, program.resolve(), *filter(Path.exists, modules)):
        assert any(path.is_relative_to(folder) for folder in shared), f"{path} is not shared: {shared}"
    assert Path("/usr") not in shared


def test_this_python_is_of_this_machine() -> None:
    assert all(path.exists() for path in this_python())
    assert Path(sys.prefix) in this_python()
