"""What the library asks of a release before it asks Slurm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from slurm_testbed.errors import UsageError
from slurm_testbed.slurm import Slurm, require_ability
from slurm_testbed.substrate import Host


def test_release_without_dynamic_nodes_says_so() -> None:
    older = 'SLURM_RELEASE=20.11.4\nSLURM_ABILITIES="auth_jwt pam"\nSLURM_SOURCE="…"\n'

    with pytest.raises(UsageError) as failure:
        require_ability(older, "dynamic_nodes", "slurmd -Z, 22.05 and later")

    assert str(failure.value) == "Slurm 20.11.4 has no dynamic_nodes (slurmd -Z, 22.05 and later)"


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n1", "n1"),
        ("n[2,5-7]", "n2"),
        ("n[1-2],rack1n01", "n1"),
        ("rack1n[01-20]", "rack1n01"),
        ("rack1n01,n[1-2]", "rack1n01"),
        ("elsewhere", "head"),
        ("", "head"),
    ],
)
def test_output_is_read_on_the_host_of_the_first_node(nodes: str, host: str) -> None:
    hosts = [Host("head", frozenset({"slurmctld"})), *(Host(name) for name in ("n1", "n2", "rack1n01"))]
    substrate: Any = SimpleNamespace(hosts=lambda: hosts)

    assert Slurm(substrate).host_of_node(nodes) == host
