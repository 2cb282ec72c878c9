"""The examples of the docstrings that need no cluster; tests/slurm runs the others."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import app_sessions
import pytest
import slurm_observability

import slurm_testbed

MODULES = [
    found.name
    for package in (slurm_testbed, app_sessions, slurm_observability)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not found.name.endswith("__main__") and ".migrations." not in found.name
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)):
        runner.run(test, out=said.append)

    assert runner.failures == 0, "".join(said)
