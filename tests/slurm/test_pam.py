"""UsePAM: a job is a PAM session of its user, as sites have it for limits (slurm.conf(5), UsePAM)."""

from __future__ import annotations

import pytest

from slurm_testbed import SlurmContainer
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm

#: slurmstepd asks PAM for the service `slurm`.
SERVICE = """\
auth     required pam_permit.so
account  required pam_permit.so
session  required pam_limits.so
"""
LIMITS = "alice hard core 1234\n"


@pytest.mark.smoke
@pytest.mark.row("C-04a.2")
def test_limits_of_pam_hold_for_jobs(slurm_release: Release) -> None:
    with SlurmContainer(slurm_release.version, accounting=False, conf={"80-pam.conf": "UsePAM=1\n"}) as slurm:
        configure_pam(slurm)

        # In 512-byte blocks, where limits.conf(5) has kilobytes.
        assert slurm.srun("sh", "-c", "ulimit -H -c") == f"{1234 * 2}\n"
        assert slurm.srun("sh", "-c", "ulimit -H -c", user="bob") != f"{1234 * 2}\n"
        job = slurm.sbatch(wrap="ulimit -H -c")
        assert job.wait().state == "COMPLETED"
        assert job.output() == f"{1234 * 2}\n"


def test_without_use_pam_they_do_not(slurm_release: Release) -> None:
    with SlurmContainer(slurm_release.version, accounting=False) as slurm:
        configure_pam(slurm)

        assert slurm.srun("sh", "-c", "ulimit -H -c") != f"{1234 * 2}\n"


def configure_pam(slurm: Slurm) -> None:
    files = {"/etc/pam.d/slurm": SERVICE.encode(), "/etc/security/limits.d/alice.conf": LIMITS.encode()}
    slurm.substrate.put(slurm.controller, files)
