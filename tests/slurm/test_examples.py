"""The examples of the docstrings, on a real cluster."""

from __future__ import annotations

import doctest
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import slurm_testbed.container.client
import slurm_testbed.container.cluster
import slurm_testbed.slurm
from slurm_testbed import SlurmContainer
from slurm_testbed.container import SlurmClient
from slurm_testbed.slurm import Slurm


@pytest.mark.parametrize(
    "module",
    [slurm_testbed.slurm, slurm_testbed.container.cluster, slurm_testbed.container.client],
    ids=lambda module: module.__name__,
)
def test_examples_do_what_they_show(module: ModuleType, two_nodes: Slurm, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/sh\ntrue\n")
    names = {
        "Path": Path,
        "Slurm": Slurm,
        "SlurmClient": SlurmClient,
        "SlurmContainer": SlurmContainer,
        "slurm": two_nodes,
        "subprocess": subprocess,
        "workdir": tmp_path,
    }
    # Those that need a cluster are marked SKIP, for `python -m doctest` without one.
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=names):
        for example in test.examples:
            example.options.pop(doctest.SKIP, None)
        runner.run(test, out=said.append)

    assert runner.tries > 0, "no examples were found"
    assert runner.failures == 0, "".join(said)
