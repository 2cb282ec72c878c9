"""What goes wrong, each in its own words, in the API and so on the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.app_sessions import await_status, jobs, running, show, start
from slurm_testbed import SlurmCluster
from slurm_testbed.errors import AppSessionsError

pytestmark = pytest.mark.deep

IMAGE = "/opt/apptainers/apps/gedit/gedit.sif"
#: Takes the ports that the job script would try: within Apptainer, which shares the node's network.
TAKE_PORTS = (
    "import socket, signal; held = [socket.create_server(('', port)) for port in range(6080, 6180)]; "
    "open('/tmp/ports-are-taken', 'w'); signal.pause()"
)


@pytest.fixture
def undrained(apps: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster, whose nodes and partition are as they were, afterwards."""
    yield apps
    apps.run(["scontrol", "update", "partitionname=viz", "state=up"])
    apps.run(["scontrol", "update", "nodename=n1,n2", "state=resume"], check=False)


def failed(slurm: SlurmCluster, app: str = "gedit") -> str:
    """What is said of a session that does not come to run."""
    return str(await_status(slurm, start(slurm, app), "error")["message"])


@pytest.mark.row("V-10.1", "V-02.7")
def test_missing_image_is_said_with_the_node_and_what_to_do(apps: SlurmCluster) -> None:
    for node in ("n1", "n2"):
        apps.run(["mv", IMAGE, f"{IMAGE}.away"], host=node, user="root")
    try:
        session = await_status(apps, start(apps), "error")
        node = session["node"] or apps.job(session["job_id"]).record().nodes
        assert session["message"] == (
            f"the image {IMAGE} is not on node {node}: deploy it with invoke deploy-app --app gedit --nodes {node}"
        )
    finally:
        for node in ("n1", "n2"):
            apps.run(["mv", f"{IMAGE}.away", IMAGE], host=node, user="root")

    apps.app_sessions.api("POST", f"app/sessions/{session['id']}/restart")
    assert await_status(apps, session, "running")["message"] == ""


@pytest.mark.row("V-10.2")
def test_no_node_that_can_run_it_is_said(undrained: SlurmCluster) -> None:
    undrained.run(["scontrol", "update", "nodename=n1,n2", "state=drain", "reason=a test"])

    assert failed(undrained) == (
        "Text editor cannot start: no node of the partition viz can run it (2 drained): "
        "an administrator resumes one, with scontrol"
    )
    assert jobs(undrained) == []


@pytest.mark.row("V-10.2")
def test_nodes_that_go_away_while_a_job_waits_are_said(undrained: SlurmCluster) -> None:
    blocker = undrained.sbatch(wrap="sleep 600", nodes=2, exclusive=True, user="bob", partition="viz")
    blocker.wait(until={"RUNNING"})
    session = await_status(undrained, start(undrained, "xterm"), "pending")
    undrained.run(["scontrol", "update", "nodename=n1,n2", "state=drain", "reason=a test"])

    message = await_status(undrained, session, "error")["message"]

    assert message.startswith("Terminal cannot start: no node of the partition viz can run it (2 drain")
    undrained.wait_until(lambda: jobs(undrained) == [], "its job to be gone", deadline=60)
    blocker.cancel()


def test_partition_that_is_down_is_said(undrained: SlurmCluster) -> None:
    undrained.run(["scontrol", "update", "partitionname=viz", "state=down"])

    assert failed(undrained) == (
        "Text editor cannot start: the partition viz is down: an administrator sets it up, with scontrol"
    )


@pytest.mark.row("V-10.3")
def test_controller_that_is_down_is_said_and_running_sessions_stay(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")
    apps.substrate.service("slurmctld", "slurmctld", "stop")
    try:
        message = failed(apps)
        assert message.startswith("Slurm does not answer: "), message
        assert show(apps, session) == session
        health = apps.app_sessions.api("GET", "app/health").json()
        assert (health["status"], health["slurm"]["ok"]) == ("degraded", False)
        left = apps.app_sessions.api("DELETE", f"app/sessions/{session['id']}")
        assert (left.status_code, left.json()["ending"]) == (202, True)
    finally:
        apps.substrate.service("slurmctld", "slurmctld", "start")

    apps.wait_until(
        lambda: show(apps, session) is None,
        "the session to be gone",
        deadline=120,
        state=lambda: str(show(apps, session)),
    )
    apps.wait_until(lambda: jobs(apps) == [], "no job of a session", deadline=60, state=lambda: str(jobs(apps)))


def test_no_free_port_is_said(undrained: SlurmCluster) -> None:
    undrained.run(["scontrol", "update", "nodename=n2", "state=drain", "reason=a test"])
    undrained.run(["rm", "-f", "/tmp/ports-are-taken"], host="n1", user="root")
    command = f'apptainer --quiet exec {IMAGE} python3 -c "{TAKE_PORTS}"'
    taker = undrained.sbatch(wrap=command, user="bob", partition="viz", nodelist="n1", mem="100M")
    undrained.wait_until(
        lambda: undrained.run(["test", "-e", "/tmp/ports-are-taken"], host="n1", check=False).returncode == 0,
        "the ports to be taken",
        deadline=60,
        state=lambda: taker.record().state,
    )

    assert failed(undrained, "xterm").startswith("no port from 6080 to 6179 is free on node n1: ")
    taker.cancel()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"app_id": "paint"}, "404 there is no application 'paint'; there are: gedit, xterm"),
        ({"app_id": "../../etc"}, "404 there is no application '../../etc'; there are: gedit, xterm"),
        ({"app": "gedit"}, "422 body"),
    ],
)
def test_unknown_application_is_refused_and_the_known_are_named(
    apps: SlurmCluster, body: dict[str, str], said: str
) -> None:
    with pytest.raises(AppSessionsError) as error:
        apps.app_sessions.api("POST", "app/sessions", json=body)

    assert said in str(error.value)
    assert jobs(apps) == []
