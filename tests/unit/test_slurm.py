"""What the library asks of a release before it asks Slurm."""

from __future__ import annotations

import pytest

from slurm_testbed.errors import UsageError
from slurm_testbed.slurm import require_ability


def test_release_without_dynamic_nodes_says_so() -> None:
    older = 'SLURM_RELEASE=20.11.4\nSLURM_ABILITIES="auth_jwt pam"\nSLURM_SOURCE="…"\n'

    with pytest.raises(UsageError) as failure:
        require_ability(older, "dynamic_nodes", "slurmd -Z, 22.05 and later")

    assert str(failure.value) == "Slurm 20.11.4 has no dynamic_nodes (slurmd -Z, 22.05 and later)"
