"""The package: what these tests run against is what the images have."""

from __future__ import annotations

import tomllib

import pytest

from fixtures.pins import pins
from slurm_testbed import data

SHARED = ("batchspawner", "jinja2", "jupyterhub", "jupyterhub-moss")
#: What the chart slurm-jupyterhub configures.
CHART = "jupyterhub-kubespawner"


@pytest.mark.parametrize("name", [*SHARED, CHART])
def test_tests_run_against_the_images_versions(name: str) -> None:
    folder = data.images() / "jupyter"
    of_images = (folder / "requirements.txt").read_text() + (folder / "requirements-hub.txt").read_text()
    (ours,) = [line for line in pins() if line.startswith(f"{name}==")]

    assert ours in of_images.splitlines()


def test_package_names_what_it_needs() -> None:
    project = tomllib.loads((data.images() / "jupyter/slurmspawner/pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["moss"]]

    assert {need.split(">")[0] for need in needs} >= set(SHARED)
