"""The package itself: its names, loaded when they are asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import slurm_testbed

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python of its own, in which a warning is an error."""
    return subprocess.run([sys.executable, "-W", "error", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", slurm_testbed.__all__)
def test_name_of_the_package_is_the_modules_own(name: str) -> None:
    found = getattr(slurm_testbed, name)

    assert found.__name__ == name, f"{name} is {found}"
    assert name in dir(slurm_testbed), f"dir() does not show {name}"


def test_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'slurm_testbed' has no attribute 'SlurmContainr'"):
        slurm_testbed.SlurmContainr  # type: ignore[attr-defined]  # noqa: B018


def test_package_loads_no_module_before_it_is_needed() -> None:
    done = python("-c", "import sys, slurm_testbed; print([name for name in sys.modules if 'slurm_testbed.' in name])")

    assert done.stdout.strip() == "[]", f"loaded: {done.stdout}{done.stderr}"


def test_module_that_is_run_by_itself_is_not_loaded_twice() -> None:
    # As `python -m` does, but for writing files.
    done = python("-c", "import runpy; runpy.run_module('slurm_testbed.releases', run_name='other', alter_sys=True)")

    assert done.returncode == 0, done.stderr


def test_nothing_unpacks_by_an_argument_that_the_python_of_debian_12_lacks() -> None:
    files = [
        path for folder in ("slurm_testbed", "fixtures", "tests", "images") for path in (ROOT / folder).rglob("*.py")
    ]

    found = [path for path in files if re.search(r"extractall\(.*\bfilter=", path.read_text())]

    assert files
    assert found == []
