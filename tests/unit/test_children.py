"""Child processes end with who asked for them."""

from __future__ import annotations

import pytest

from slurm_testbed.children import child


def test_child_does_not_outlive_an_interrupted_block() -> None:
    with pytest.raises(KeyboardInterrupt), child(["sleep", "600"]) as started:
        raise KeyboardInterrupt

    assert started.returncode == -15
