"""Health requests to the daemons, which releases from 25.11 on answer."""

from __future__ import annotations

import pytest

from slurm_testbed.slurm import Slurm

ASK = """
exec 3<> "/dev/tcp/$(hostname)/$0" && printf 'GET %s HTTP/1.0\\r\\n\\r\\n' "$1" >&3 && head --lines=1 <&3
"""


@pytest.mark.requires("health_endpoints")
@pytest.mark.parametrize(("daemon", "port"), [("slurmctld", 6817), ("slurmd", 6818)], ids=["slurmctld", "slurmd"])
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_daemon_says_that_it_is_well(slurm: Slurm, daemon: str, port: int, path: str) -> None:
    answer = slurm.run(["bash", "-c", ASK, str(port), path], host=slurm.host_of(daemon)).stdout

    assert answer.split()[1] == "204", answer
