"""Clusters that dynamic nodes may join."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm


@pytest.fixture
def room(request: pytest.FixtureRequest, two_nodes: Slurm, slurm_release: Release) -> Iterator[Slurm]:
    """An idle cluster of two nodes that takes dynamic ones; those that a test leaves are removed."""
    if two_nodes.substrate.facts().kind == "single" and not slurm_release.has("dynamic_node_ports"):
        request.node.user_properties.append(("slurm_lacks", "dynamic_node_ports"))
        pytest.skip(f"not checkable here because a dynamic node of Slurm {slurm_release.version} needs its own host")
    yield two_nodes
    two_nodes.reset()
