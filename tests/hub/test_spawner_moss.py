"""jupyterhub-moss's page with our spawner: what stands there, what is submitted, and limits over the REST API."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from fixtures.hub import Server, await_server, make_known, refused, spawn
from fixtures.spawners import log_in
from slurm_testbed import SlurmCluster

pytestmark = pytest.mark.hub_config("examples/moss.py", "odd.py", "quick.py")

#: The default of this cluster's partition is less than a server needs.
PARTITIONS = {
    "partition_1": "Nodes=n1,n2 MaxTime=1-00:00:00 DefMemPerCPU=1024",
    "partition_2": "Nodes=n1,n2 DefMemPerCPU=1024",
    "partition_3": "Nodes=n1",
    "half": "Nodes=n1,n2 MaxTime=30 DefMemPerCPU=1024",
    "empty": "",
    "down": "Nodes=n2 State=DOWN",
}


@pytest.fixture
def moss(hub_cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """A hub with jupyterhub-moss, and the partitions that its example names."""
    hub_cluster.run(["ln", "-sfn", "/opt/jupyter", "/shared/another"])
    for name, settings in PARTITIONS.items():
        hub_cluster.run(["scontrol", "create", f"PartitionName={name}", *settings.split()])
    yield hub_cluster
    hub_cluster.wait_until(lambda: _emptied(hub_cluster), "the partitions to be without jobs", deadline=30)


def _emptied(slurm: SlurmCluster) -> bool:
    """Whether all partitions are deleted, after the jobs that hold them."""
    slurm.run(["scancel", "--user=alice"], check=False)
    there = slurm.run(["sinfo", "--all", "--noheader", "--format=%R"]).stdout.split()
    left = [name for name in PARTITIONS if name in there]
    return not [
        name for name in left if slurm.run(["scontrol", "delete", f"PartitionName={name}"], check=False).returncode
    ]


def page_of(slurm: SlurmCluster, session: requests.Session) -> str:
    """The spawn page."""
    page = session.get(f"{slurm.hub.url}/hub/spawn/alice", timeout=60)
    assert page.status_code == 200, page.text
    return html.unescape(page.text)


def table(page: str) -> dict[str, str]:
    """The page's table of available resources: idle and all cores, idle and all nodes of each partition."""
    row = r"<th>(\w+)</th>\s*" + r"<th[^>]*>(\d+) <small>/ (\d+)</small></th>\s*" * 2
    return {name: " ".join(counts) for name, *counts in re.findall(row, page)}


def of_sinfo(slurm: SlurmCluster) -> dict[str, str]:
    """The same by Slurm's own words, for the partitions that the page has."""
    found = {}
    for line in slurm.run(["sinfo", "--all", "--noheader", "--format=%R %C %F"]).stdout.splitlines():
        name, cores, nodes = line.split()
        (_, idle_cores, _, all_cores), (_, idle_nodes, _, all_nodes) = cores.split("/"), nodes.split("/")
        found[name] = f"{idle_cores} {all_cores} {idle_nodes} {all_nodes}"
    return {name: found[name] for name in PARTITIONS}


@pytest.mark.row("M-01.1", "M-01.2", "M-02.1", "M-02.8")
def test_page_has_the_documents_partitions(moss: SlurmCluster) -> None:
    page = page_of(moss, log_in(moss.hub, "alice"))

    spawner = moss.hub.api("GET", "info").json()["spawner"]["class"]
    assert spawner == "jupyterhub_slurmspawner.moss.MOSlurmSpawner"
    for number, architecture in enumerate(("x86_86", "ppc64le"), 1):
        assert f'<p>Partition {number} <span class="label-extra-info">({architecture})</span></p>' in page
    assert "<p>Partition 3" not in page, "the tab Simple has it not"
    assert '<option value="partition_3">' in page
    assert requests.get(f"{moss.hub.url}/hub/form/option_form.js", timeout=30).ok
    assert "venv is now jupyter_environments" in moss.substrate.logs("hub", "jupyterhub")


@pytest.mark.row("M-04.1", "M-04.2", "M-04.3", "M-04.4")
def test_table_is_sinfos(moss: SlurmCluster) -> None:
    session = log_in(moss.hub, "alice")
    idle = table(page_of(moss, session))
    assert idle == of_sinfo(moss)
    assert idle["empty"] == "0 0 0 0"

    # n1 is in use in part, n2 is down: https://slurm.schedmd.com/sinfo.html
    job = moss.sbatch(wrap="sleep 300", nodelist="n1", cpus_per_task=1, partition="partition_1")
    job.wait(until={"RUNNING"})
    moss.run(["scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test"])
    odd = table(page_of(moss, session))

    assert odd == of_sinfo(moss)
    assert odd["partition_1"] != idle["partition_1"]
    assert odd["down"].split()[0] == "0"
    job.cancel()
    moss.run(["scontrol", "update", "NodeName=n2", "State=RESUME"])


@pytest.mark.deep
@pytest.mark.row("M-04.5")
def test_thirty_minutes_are_thirty_minutes(moss: SlurmCluster) -> None:
    data = re.search(r'"half": (\{.*?"max_runtime": \d+)', page_of(moss, log_in(moss.hub, "alice")))
    assert data
    assert re.search(r'"max_runtime": 1800\b', data[1]), data[1]

    error = refused(moss, "alice", partition="half", runtime="45:00")
    server = spawn(moss, "alice", partition="half", runtime="20:00")

    assert (error.status, "the job's time is 45:00, at most 0:30:00" in str(error)) == (400, True)
    assert server.job.record().fields["TimeLimit"] == "00:20:00"


@pytest.mark.parametrize(
    ("output", "place"),
    [("slurm-%j.out", "/home/alice/slurm-{}.out"), ("/dev/null", "/shared/jupyterhub-logs/alice-{}.err")],
    ids=["saved", "not-saved"],
)
def test_session_log_is_at_home_where_that_was_chosen(moss: SlurmCluster, output: str, place: str) -> None:
    job = spawn(moss, "alice", partition="partition_1", output=output).job

    record = job.record()
    assert record.fields["StdErr"] == place.format(job.id)
    assert "jupyter" in moss.read(record.fields["StdErr"], host=moss.host_of_node(record.nodes))


@pytest.mark.row("M-05.1", "M-05.2", "M-05.3", "M-05.4", "M-02.2")
def test_start_submits_exactly_what_was_chosen(moss: SlurmCluster) -> None:
    hub = moss.hub
    session = log_in(hub, "alice")
    page = page_of(moss, session)
    (action,) = re.findall(r'<form[^>]*action="([^"]+)"', page) or re.findall(r"action='([^']+)'", page)
    form = {
        "partition": "partition_2", "nprocs": "2", "mem": "1G", "ngpus": "1", "runtime": "0:50:00", "options": "",
        "environment_id": "default", "environment_path": "", "environment_modules": "", "reservation": "",
        "default_url": "/lab",
    }  # fmt: skip
    answer = session.post(f"{hub.url}{action}", data=form, timeout=60)
    assert answer.status_code == 200, answer.text

    server = await_server(moss, "alice")

    fields = server.job.record().fields
    expected = {"Partition": "partition_2", "CPUs/Task": "2", "TimeLimit": "00:50:00", "MinMemoryNode": "1G"}
    assert {name: fields.get(name) for name in expected} == expected
    # 22.05 says gres:gpu, and TRES for what is allocated.
    assert re.search(r"gres[/:]gpu:V100-SXM2-32GB[:=]1", fields["TresPerNode"], re.IGNORECASE), fields
    allocated = fields.get("AllocTRES") or fields["TRES"]
    assert re.search(r"\bcpu=2\b.*gres/gpu.*=1", allocated), allocated
    assert fields["NumCPUs"] == "2"


@pytest.mark.deep
@pytest.mark.row("M-02.9")
def test_server_runs_from_its_partitions_environment(moss: SlurmCluster) -> None:
    server = spawn(moss, "alice", partition="half")

    printed = server.start_kernel().run("import os; print(os.environ['PATH'].split(':')[0])")
    script = moss.run(["scontrol", "write", "batch_script", str(server.job.id), "-"]).stdout
    assert printed == "/shared/another/bin\n"
    assert "/shared/another/bin/batchspawner-singleuser /shared/another/bin/jupyterhub-singleuser" in script


@pytest.mark.row("M-06.1", "M-06.2", "M-06.3", "M-02.3", "M-02.4", "M-02.5")
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"partition": "partition_1", "nprocs": 29}, "29 cores, at most 28"),
        ({"partition": "partition_1", "ngpus": 1}, "it has no GPUs"),
        ({"partition": "partition_2", "ngpus": 3}, "3 GPUs, at most 2"),
        ({"partition": "partition_2", "runtime": "2:00:00"}, "the job's time is 2:00:00, at most 1:00:00"),
        ({"partition": "gone"}, "partition gone is not available; there are partition_1, "),
    ],
)
def test_limits_hold_over_the_rest_api_as_on_the_page(moss: SlurmCluster, asked: dict[str, Any], words: str) -> None:
    error = refused(moss, "alice", **asked)

    session = log_in(moss.hub, "alice")
    query = "&".join(f"opt-{name}={value}" for name, value in asked.items())
    page = session.get(f"{moss.hub.url}/hub/spawn/alice?{query}", timeout=60)
    assert (error.status, words in str(error)) == (400, True), error
    assert (page.status_code, words in html.unescape(page.text)) == (400, True), page.text
    assert moss.queue() == []


def test_partition_that_slurm_refuses_says_so(moss: SlurmCluster) -> None:
    """The page cannot know: it is Slurm's word."""
    error = refused(moss, "alice", partition="down", runtime="0:10:00", nprocs=2, memory="1G", options="--qos=none")

    assert error.status == 400
    assert "Invalid qos specification" in str(error)


@pytest.mark.row("M-06.1")
def test_rest_spawn_without_options_is_what_the_page_begins_with(moss: SlurmCluster) -> None:
    # A user whose last options the hub does not know.
    make_known(moss.hub, "alice")
    moss.hub.api("DELETE", "users/alice")
    make_known(moss.hub, "alice")
    moss.hub.api("POST", "users/alice/server")
    server: Server = await_server(moss, "alice")

    fields = server.job.record().fields
    assert (fields["Partition"], fields["CPUs/Task"], fields["TimeLimit"]) == ("partition_1", "1", "01:00:00")
    server.ask("PUT", "contents/moss.txt", json={"type": "file", "format": "text", "content": "here"})
    assert moss.read("/shared/notebooks/alice/moss.txt") == "here"
