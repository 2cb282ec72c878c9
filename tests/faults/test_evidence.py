"""What a failed test leaves to find out why, of clusters that are gone by then."""

from __future__ import annotations

import pytest


def test_failure_shows_the_logs_of_clusters_that_the_test_started_itself(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from slurm_testbed import SlurmContainer

        def test_that_fails():
            with SlurmContainer(accounting=False) as slurm:
                assert slurm.sbatch(wrap="exit 3").wait().state == "COMPLETED"
        """
    )

    ran = pytester.runpytest("-p", "no:cacheprovider")

    ran.assert_outcomes(failed=1)
    ran.stdout.fnmatch_lines(["*- squeue -*", "*- slurmctld on *", "*WEXITSTATUS 3*", "*- slurmd on *"])
