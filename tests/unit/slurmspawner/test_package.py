"""The package: what these tests run against is what the images have."""

from __future__ import annotations

import tomllib

import pytest

from slurm_testbed import data

SHARED = ("batchspawner", "jinja2", "jupyterhub", "jupyterhub-moss")
#: What the chart slurm-jupyterhub configures.
CHART = "jupyterhub-kubespawner"


def pins(text: str) -> dict[str, str]:
    """The versions that a requirements file pins."""
    lines = [line for line in text.splitlines() if "==" in line]
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("name", [*SHARED, CHART])
def test_tests_run_against_the_images_versions(name: str) -> None:
    folder = data.images() / "jupyter"
    of_images = pins((folder / "requirements.txt").read_text() + (folder / "requirements-hub.txt").read_text())

    assert pins((data.images().parent / "requirements.txt").read_text())[name] == of_images[name]


def test_package_names_what_it_needs() -> None:
    project = tomllib.loads((data.images() / "jupyter/slurmspawner/pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["moss"]]

    assert {need.split(">")[0] for need in needs} >= set(SHARED)
