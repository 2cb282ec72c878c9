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
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm

#: Examples of what not every release can, and says so: tests/nodes has it.
DYNAMIC = {"add_node", "remove_node"}


def takes_dynamic_nodes(slurm: Slurm, release: Release) -> bool:
    return release.has("dynamic_nodes" if slurm.substrate.facts().kind == "cluster" else "dynamic_node_ports")


@pytest.mark.requires("containers")
@pytest.mark.parametrize(
    "module",
    [slurm_testbed.slurm, slurm_testbed.container.cluster, slurm_testbed.container.client],
    ids=lambda module: module.__name__,
)
def test_examples_do_what_they_show(
    module: ModuleType, two_nodes: Slurm, slurm_release: Release, tmp_path: Path
) -> None:
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
        if test.name.rpartition(".")[2] in DYNAMIC and not takes_dynamic_nodes(two_nodes, slurm_release):
            continue
        for example in test.examples:
            example.options.pop(doctest.SKIP, None)
        runner.run(test, out=said.append)

    assert runner.tries > 0, "no examples were found"
    assert runner.failures == 0, "".join(said)
