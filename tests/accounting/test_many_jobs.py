"""Two thousand jobs submitted, two thousand accounted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from slurm_testbed import SlurmCluster, SlurmContainer

ARRAYS, TASKS, SINGLE = 2, 950, 100


@pytest.mark.deep
def test_every_submitted_job_is_accounted(slurm_start: Callable[..., SlurmContainer | SlurmCluster]) -> None:
    one_by_one = f"for i in $(seq {SINGLE}); do sbatch --output=/dev/null --wrap true; done"
    with slurm_start() as slurm:
        for _ in range(ARRAYS):
            slurm.sbatch(wrap="true", array=f"1-{TASKS}", output="/dev/null")
        slurm.run(["bash", "-c", one_by_one], user="alice", workdir="/home/alice")
        slurm.wait_idle(deadline=600)

        def accounted() -> Counter[str]:
            return Counter(row["State"] for row in slurm.sacct("--allocations", "--array", "--format=State"))

        slurm.wait_until(
            lambda: not accounted().keys() - {"COMPLETED"} or None,
            "every job in the accounting to be over",
            deadline=60,
            state=lambda: str(accounted()),
        )
        assert accounted() == {"COMPLETED": ARRAYS * TASKS + SINGLE}
