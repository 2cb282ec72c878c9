"""A cluster of the chart slurm-cluster for the tests of a file, and charts beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slurm_testbed.kubernetes import SlurmOnKubernetes
from slurm_testbed.releases import Release


@pytest.fixture(scope="module")
def cluster(slurm_release: Release) -> Iterator[SlurmOnKubernetes]:
    """Two nodes; the chart makes their keys."""
    with SlurmOnKubernetes(slurm_release.version, nodes=2) as running:
        yield running
