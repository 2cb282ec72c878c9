"""Many users at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fixtures.hub import HubStart, spawn

USERS = [f"user{number}" for number in range(10)]


@pytest.mark.deep
def test_ten_users_at_once_all_get_a_server(hub_start: HubStart) -> None:
    # The batch script asks for 2 CPUs and 4 GB: five servers on each node.
    with hub_start(nodes=2, cpus=10, memory=20 * 1024) as slurm:
        for number, user in enumerate(USERS):
            for host in slurm.substrate.hosts():
                slurm.run(["useradd", f"--uid={2000 + number}", "--create-home", user], host=host.name)
        slurm.run(["sacctmgr", "--immediate", "add", "user", ",".join(USERS), "account=research"])

        with ThreadPoolExecutor(len(USERS)) as pool:
            servers = list(pool.map(lambda user: spawn(slurm, user, deadline=120), USERS))
        told = [server.get("status")["started"] for server in servers]
        records = [server.job.record() for server in servers]

    assert len(told) == len(USERS)
    assert {record.state for record in records} == {"RUNNING"}
    assert [record.fields["UserId"].partition("(")[0] for record in records] == USERS
    assert sorted(record.fields["NodeList"] for record in records) == ["n1"] * 5 + ["n2"] * 5
