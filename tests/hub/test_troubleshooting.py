"""The commands by which a person looks what is wrong: each runs on its host, and gives a healthy answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.hub import spawn
from slurm_testbed import SlurmCluster

DOCUMENT = Path(__file__).parents[2] / "docs/hub.md"
#: A line of the document's table: a host, a command of systemd, and what takes its place.
LINE = re.compile(r"^\| `(\w+)` \| `((?:systemctl|journalctl) [^`]+)` \| `([^`]+)` \|$", re.MULTILINE)
RUNS = r"^up \(pid \d+"
#: What is healthy.
ANSWERS = {
    "systemctl status slurmctld": RUNS,
    "systemctl status munge": RUNS,
    "systemctl status jupyterhub": RUNS,
    "systemctl restart munge": r"^$",
    "journalctl -u jupyterhub -f": r"JupyterHub is now running",
}
DEBUG = r"debug\* +up +infinite"


@pytest.mark.deep
@pytest.mark.row("H-11.1", "H-11.2", "H-11.3", "H-11.4", "H-11.6", "H-11.8", "H-11.9", "H-11.10", "H-11.12", "H-11.13")
def test_commands_give_a_healthy_answer_while_a_server_runs(hub_cluster: SlurmCluster) -> None:
    job = spawn(hub_cluster, "alice").job.id
    healthy = [
        ("slurmctld", "sinfo", DEBUG),
        ("hub", "sinfo", DEBUG),
        ("jupyter", "sinfo", DEBUG),
        ("slurmctld", "squeue", rf"{job} +debug jupyterh +alice +R "),
        ("hub", "munge -n | unmunge", r"STATUS: +Success \(0\)"),
        ("jupyter", "munge -n | unmunge", r"STATUS: +Success \(0\)"),
        ("hub", "scontrol show config", r"SlurmctldHost\[0\] += slurmctld"),
        ("hub", "cat /var/log/slurm/jupyterhub.log", rf"Job submitted\. .*output: {job}"),
        ("hub", "ls /shared/jupyterhub-logs/", rf"alice-{job}\.err"),
        ("jupyter", "ls /shared/jupyter-workspace/", "slurm_examples.py"),
        ("hub", "mount | grep shared", r"^\S+ on /shared type "),
        ("jupyter", "df -h /shared", r"% /shared$"),
    ]

    said = {(host, command): _run(hub_cluster, host, command) for host, command, _ in healthy}

    sick = [one for one in healthy if not re.search(one[2], said[one[:2]], re.MULTILINE)]
    assert sick == [], said


@pytest.mark.row("H-11.5", "H-11.7", "H-11.9")
def test_every_line_of_the_table_runs_on_the_host_that_it_names(hub_cluster: SlurmCluster) -> None:
    lines = LINE.findall(DOCUMENT.read_text())
    assert sorted(command for _, command, _ in lines) == sorted(ANSWERS)
    before = _run(hub_cluster, "hub", "cat /run/munge/munged.pid")

    for host, systemd, ours in lines:
        # What goes on for ever is looked at for a second.
        said = _run(hub_cluster, host, f"timeout 1 {ours}" if systemd.endswith(" -f") else ours)
        assert re.search(ANSWERS[systemd], said, re.MULTILINE), f"{ours} on {host}: {said}"

    assert _run(hub_cluster, "hub", "cat /run/munge/munged.pid") != before
    hub_cluster.wait_until(
        lambda: "is UP" in _run(hub_cluster, "hub", "scontrol ping"), "Slurm to answer the hub again", deadline=30
    )
    spawn(hub_cluster, "alice")


@pytest.mark.row("H-11.14")
def test_file_touched_on_one_host_is_seen_on_the_others(hub_cluster: SlurmCluster) -> None:
    _run(hub_cluster, "hub", "touch /shared/test-file")
    try:
        for host in ("slurmctld", "jupyter", "n2"):
            assert _run(hub_cluster, host, "ls /shared/test-file") == "/shared/test-file\n"
    finally:
        _run(hub_cluster, "hub", "rm /shared/test-file")


def _run(slurm: SlurmCluster, host: str, command: str) -> str:
    done = slurm.run(["bash", "-c", command], host=host, check=False)
    return done.stdout + done.stderr
