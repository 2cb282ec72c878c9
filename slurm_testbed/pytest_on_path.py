"""What `--slurm-on-path` adds to the plugin: the cluster is there before any fixture of a suite, of whatever scope."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from slurm_testbed.on_path import write_early_commands
from slurm_testbed.slurm import Slurm


def pytest_configure(config: pytest.Config) -> None:
    """Let modules find the commands when they are imported, as in `skipif(shutil.which("sbatch") is None)`."""
    folder = tempfile.TemporaryDirectory(prefix="slurm-testbed-bin-")
    config.add_cleanup(folder.cleanup)
    write_early_commands(Path(folder.name))
    patch = pytest.MonkeyPatch()
    patch.setenv("PATH", folder.name, prepend=os.pathsep)
    config.add_cleanup(patch.undo)


@pytest.fixture(scope="session", autouse=True)
def _slurm_on_path(slurm_cluster: Slurm) -> Slurm:
    return slurm_cluster
