"""The job script on a cluster whose nodes have Apptainer: where its picture is, and what it says when there is none."""

from __future__ import annotations

import functools
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from fixtures.screen import Refused, changed, colours, width
from fixtures.viz import AppJob, submit
from slurm_testbed import SlurmCluster

#: A stack of eight containers, and an image of 250 MB on each node: `invoke test --deep -- tests/viz`.
pytestmark = pytest.mark.deep

ALL_PROCESSES = "cat /proc/[0-9]*/cmdline"


def of_gedit(job: AppJob, file: str) -> str:
    """A file in /proc of the session's gedit, once there is one."""
    script = f"cat /proc/$(grep -lx gedit /proc/[0-9]*/comm | head -n 1 | cut -d/ -f3)/{file} 2> /dev/null; true"
    ask = ["bash", "-c", script]
    return job.slurm.wait_until(lambda: job.slurm.run(ask, host=job.node).stdout, "gedit to run")


@pytest.mark.row("V-03.1")
def test_job_asks_for_what_the_seed_asks_for(viz: SlurmCluster) -> None:
    fields = submit(viz).job.wait(until={"RUNNING"}).fields

    asked = ("Partition", "NumNodes", "CPUs/Task", "NumCPUs", "MinMemoryNode", "TimeLimit")
    assert [fields[name] for name in asked] == ["viz", "1", "2", "2", "4G", "02:00:00"]


@pytest.mark.row("V-03.2", "V-03.3", "V-03.5", "V-03.6", "V-03.7", "V-06.2", "V-06.4")
def test_session_has_its_picture_on_its_node_and_says_where(viz: SlurmCluster) -> None:
    job = submit(viz, port=6180)
    port = job.await_port()
    info = job.info()
    addresses = viz.run(["getent", "ahostsv4", job.node], host="client").stdout.split()

    assert port == 6180, "the port was free, and another one was taken"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", info.pop("START_TIME"))
    assert info == {
        "JOB_ID": str(job.job.id),
        "NODE": job.node,
        "NODE_IP": addresses[0],
        "VNC_PORT": "6180",
        "STATUS": "running",
    }
    path = f"/tmp/app_session_{job.session}.info"
    assert viz.run(["stat", "--format=%a %U", path], host=job.node).stdout == "600 alice\n"
    assert "APPTAINER_CONTAINER=/opt/apptainers/apps/gedit/gedit.sif" in of_gedit(job, "environ").split("\0")
    with job.screen() as screen:
        assert colours(screen.await_calm()) > 50
    with pytest.raises(Refused), job.screen(password="wrong567"):
        pytest.fail("it let us in")


@pytest.mark.row("V-06.3")
def test_what_is_typed_is_in_the_users_own_file(viz: SlurmCluster) -> None:
    viz.run(["rm", "-f", "/home/alice/typed.txt"], host="client")
    job = submit(viz, "typed.txt")

    with job.screen() as screen:
        before = screen.await_calm()
        screen.write("typed in a job")
        screen.await_picture(lambda picture: width(changed(before, picture)) > 60, "the typed text")
        screen.await_calm()
        screen.press("Ctrl", "s")
        screen.await_calm()

    read = ["sh", "-c", "cat /home/alice/typed.txt 2> /dev/null; true"]
    text = viz.wait_until(lambda: viz.run(read, host="client").stdout, "the saved file", deadline=60)
    assert text == "typed in a job\n"
    assert viz.run(["stat", "--format=%a %U", "/home/alice/typed.txt"], host="client").stdout == "644 alice\n"


@pytest.mark.row("V-08")
def test_two_sessions_on_one_node_get_ports_and_displays_of_their_own(viz: SlurmCluster) -> None:
    jobs = [submit(viz, nodelist="n1", user=user, port=6280) for user in ("alice", "bob")]
    with ThreadPoolExecutor() as threads:
        ports = list(threads.map(AppJob.await_port, jobs))
    assert sorted(ports) == [6280, 6281]

    one, two = jobs
    with one.screen() as first, two.screen() as second:
        before = [first.await_calm(), second.await_calm()]
        first.write("only in the first session of the two")
        first.await_picture(lambda picture: width(changed(before[0], picture)) > 60, "what was typed into the first")
        # A cursor may blink.
        assert width(changed(before[1], second.await_calm())) <= 4, "what was typed into one shows in the other"
    with pytest.raises(Refused), one.screen(password=two.password):
        pytest.fail("the password of one is that of the other")
    sockets = viz.run(["sh", "-c", "ls /tmp/.X11-unix"], host="n1").stdout.split()
    assert {"X1", "X2"} <= set(sockets)


def test_password_is_in_no_process_list_no_log_and_no_record(viz: SlurmCluster) -> None:
    job = submit(viz)
    job.await_port()

    # Of the others: what only its own user and root can read is the user's.
    script = f"{ALL_PROCESSES}; cat /tmp/app_session_*.info"
    seen = [
        viz.run(["bash", "-c", script], host=job.node).stdout,
        viz.run(["scontrol", "show", "job", "--details", str(job.job.id)]).stdout,
        job.job.output(),
        viz.substrate.logs(job.node, "slurmd"),
        viz.substrate.logs("slurmctld", "slurmctld"),
    ]
    application = of_gedit(job, "environ")

    assert "gedit" in seen[0]
    assert not [number for number, text in enumerate(seen) if job.password in text]
    assert "XAUTHORITY=" in application
    assert job.password not in application


@pytest.mark.parametrize("how", ["cancelled", "out of time"])
def test_nothing_is_left_of_a_session_that_is_ended(viz: SlurmCluster, how: str) -> None:
    job = submit(viz, nodelist="n1")
    job.await_port()
    if how == "cancelled":
        job.job.cancel()
    else:
        # The least that Slurm knows: a minute, of which the session has used a part.
        viz.run(["scontrol", "update", f"JobId={job.job.id}", "TimeLimit=00:01:00"])
    state = job.job.wait(deadline=180).state

    assert state == {"cancelled": "CANCELLED", "out of time": "TIMEOUT"}[how]
    # The logs are of the service's sessions, which may have run here before.
    left = (
        "ls -d /tmp/app_session* /tmp/viz-app-* /tmp/.X1-lock /tmp/.X11-unix/X1 2> /dev/null | grep -v '[.]log$'; true"
    )
    look = functools.partial(viz.run, ["bash", "-c", left], host="n1")
    viz.wait_until(
        lambda: look().stdout == "", "nothing to be left", deadline=30, state=lambda: look().stdout + job.job.output()
    )
    assert not re.search("Xvnc|websockify", viz.run(["bash", "-c", ALL_PROCESSES], host="n1").stdout)


@pytest.mark.row("V-10.1")
def test_missing_image_is_said_with_what_to_do(viz: SlurmCluster) -> None:
    job = submit(viz, app="paraview", nodelist="n2")
    record = job.job.wait()

    text = (
        "the image /opt/apptainers/apps/paraview/paraview.sif is not on node n2: "
        "deploy it with invoke deploy-app --app paraview --nodes n2"
    )
    assert (record.state, record.exit_code) == ("FAILED", 1)
    assert job.comment() == f"error={text}"
    assert text in job.job.output()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"VNC_PORT": "none"}, "VNC_PORT=none is no port: give one from 1000 to 65400"),
        ({"SESSION_ID": "../etc"}, "SESSION_ID is no name"),
        ({"APP_SESSION_PASSWORD": ""}, "the job was submitted without APP_SESSION_PASSWORD"),
        ({"APP": "gedit2"}, "there is no application 'gedit2': there are gedit, "),
        ({"GEOMETRY": "large"}, "GEOMETRY=large is no size"),
        ({"APP_SESSION_PASSWORD": "too long for it"}, "holds no password for VNC: give 6 to 8 letters"),
    ],
)
def test_what_cannot_be_is_the_jobs_comment(viz: SlurmCluster, env: dict[str, str], said: str) -> None:
    job = submit(viz, env=env)
    record = job.job.wait()

    assert (record.state, record.exit_code) == ("FAILED", 1)
    assert job.comment().startswith("error=")
    assert said in job.comment()
    assert said in job.job.output()
