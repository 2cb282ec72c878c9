"""The integration guide's manual check, step by step with its own commands, and what our own check says of a node.

Its `curl` is `ask` here, for the images have none, and its `journalctl` the daemon's log, for they have no systemd.
"""

from __future__ import annotations

import re

import pytest

from fixtures.observability import await_state, kinds, known
from slurm_testbed import SlurmCluster

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep

SERVICE = "http://observability:8080"
ASK = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=30) as answer:
    print(answer.status, answer.read().decode())
"""


def says(slurm: SlurmCluster, command: str, host: str = "n1", **env: str) -> str:
    """What a command of the guide prints on a host; it must succeed."""
    done = slurm.substrate.exec(host, ["sh", "-c", command], env=env)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.row("O-12.1", "O-12.2", "O-03.2")
def test_manual_check(with_gpu_tools: SlurmCluster) -> None:
    slurm = with_gpu_tools
    version = slurm.substrate.facts().cgroup

    # Verifying the Setup, 1: cgroups are there.
    assert f"type cgroup{'2' if version == 'v2' else ''} " in says(slurm, "mount | grep cgroup")
    # 2: Slurm puts jobs into them.
    assert slurm.srun("--job-name=test", "--nodelist=n1", "hostname") == "n1\n"
    job = slurm.sbatch(wrap="sleep 600", nodelist="n1")
    job.wait(until={"RUNNING"})
    found = await_state(slurm, job, "running")
    slurm.wait_until(
        lambda: known(slurm, job.id)["usage"], "the job's numbers", state=lambda: str(known(slurm, job.id))
    )
    root = "/sys/fs/cgroup" if version == "v2" else "/sys/fs/cgroup/memory"
    folders = says(slurm, f"find {root} -type d -name 'job_*' -o -type d -name 's[0-9A-Z]*' | grep -v step").split()
    assert len(folders) == 1, folders
    assert found["node_list"] == ["n1"]
    job.cancel()
    job.wait()
    # 3: prolog and epilog by hand.
    variables = {
        "SLURM_JOB_ID": "99999",
        "SLURM_JOB_USER": "alice",
        "SLURM_NODELIST": "n1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NODEID": "0",
    }
    assert says(slurm, "/etc/slurm/prolog.d/50-observability.sh", **variables) == ""
    slurm.wait_until(lambda: known(slurm, 99999), "the job in the API", deadline=30)
    by_hand = slurm.observability.api("GET", "v1/jobs/slurm-99999").json()
    assert (by_hand["user"], by_hand["node_list"], by_hand["state"]) == ("alice", ["n1"], "running")
    assert says(slurm, "/etc/slurm/epilog.d/50-observability.sh", **variables, SLURM_JOB_EXIT_CODE="0") == ""
    slurm.wait_until(
        lambda: known(slurm, 99999)["state"] == "completed",
        "the end in the API",
        deadline=30,
        state=lambda: str(known(slurm, 99999)),
    )
    assert kinds(slurm, 99999) == [(0, "finished"), (0, "started")]
    # 4: the service's log, and its jobs.
    assert "Uvicorn running on" in slurm.substrate.logs("observability", "slurm-observability")
    listed = slurm.observability.api("GET", "v1/jobs").json()["jobs"]
    assert {99999, job.id} <= {one["job_id"] for one in listed}


@pytest.mark.row("O-12.2", "O-03.1", "O-13.4")
def test_troubleshooting_commands_give_healthy_answers(with_gpu_tools: SlurmCluster) -> None:
    slurm = with_gpu_tools
    # Prolog/Epilog not running.
    for folder in ("prolog.d", "epilog.d"):
        listing = says(slurm, f"ls -laL /etc/slurm/{folder}/")
        assert re.search(r"^-rwxr-xr-x 1 root root .* 50-observability\.sh$", listing, re.MULTILINE)
    for host, daemon in (("slurmctld", "slurmctld"), ("n1", "slurmd")):
        log = slurm.substrate.logs(host, daemon)
        assert "started" in log
        assert not re.findall(r"error:.*(?:prolog|epilog).*", log, re.IGNORECASE)
    paths = says(slurm, "scontrol show config | grep -iE '^(pro|epi)log'")
    for name, path in {
        "Prolog": "/etc/slurm/prolog.d/*",
        "Epilog": "/etc/slurm/epilog.d/*",
        "PrologSlurmctld": "/etc/slurm/prolog.slurmctld.sh",
        "EpilogSlurmctld": "/etc/slurm/epilog.slurmctld.sh",
    }.items():
        assert re.search(rf"^{name}(\[0\])? += {re.escape(path)}$", paths, re.MULTILINE), paths
    # Cgroup not found for jobs.
    assert "/sys/fs/cgroup" in says(slurm, "cat /proc/mounts | grep cgroup")
    config = says(slurm, "scontrol show config | grep -i cgroup")
    for line in (
        "ProctrackType += proctrack/cgroup",
        "TaskPlugin += .*task/cgroup",
        f"CgroupPlugin += cgroup/{slurm.substrate.facts().cgroup}",
    ):
        assert re.search(line, config), config
    # What it says of cgroups is an error; a healthy node says nothing of them.
    assert "cgroup" not in says(slurm, "slurmd -C 2>&1")
    # GPU metrics not collected.
    assert says(slurm, "setpriv --reuid=slurm --clear-groups which nvidia-smi").strip() == "/usr/local/bin/nvidia-smi"
    assert re.search(r"Gres=gpu:2\b", says(slurm, "scontrol show node n1 | grep Gres"))
    query = "nvidia-smi --query-gpu=gpu_name,utilization.gpu,memory.used --format=csv"
    assert "stand-in" in slurm.srun("--nodelist=n1", "--gres=gpu:1", "sh", "-c", query)
    # Network connectivity issues.
    assert says(slurm, "getent hosts observability").split()[1] == "observability"
    done = slurm.substrate.exec("n1", ["python3", "-c", ASK, f"{SERVICE}/v1/health"])
    assert done.stdout.startswith("200 "), done.stderr


@pytest.fixture
def check(with_gpu_tools: SlurmCluster) -> list[str]:
    return [
        "slurm-observability",
        "check",
        f"--url={SERVICE}",
        "--token-file=/shared/observability/agent.token",
    ]


@pytest.mark.row("O-12.2")
def test_own_check_finds_nothing_on_a_healthy_node(observed: SlurmCluster, check: list[str]) -> None:
    for node in observed.nodes():
        done = observed.substrate.exec(node, check)

        lines = done.stdout.splitlines()
        assert {line.split()[0] for line in lines} == {"ok"}, done.stdout
        assert done.returncode == 0
        assert f"{SERVICE} takes what this agent sends" in lines[-1]


@pytest.mark.row("O-03.5")
def test_own_check_names_what_today_s_slurm_rejects(observed: SlurmCluster, check: list[str]) -> None:
    folder = "/run/cgroup-release-agent"
    line = "CgroupReleaseAgentDir=/etc/slurm/cgroup"
    says(observed, f"mkdir -p {folder} && cp -rL /etc/slurm/. {folder}")
    try:
        before = observed.substrate.exec("n1", ["slurmd", "-G", "-f", f"{folder}/slurm.conf"])
        says(observed, f"echo {line} >> {folder}/cgroup.conf")
        done = observed.substrate.exec("n1", [*check, f"--slurm-conf={folder}/slurm.conf"])
        # Whether it is so: what this release's own slurmd says to the same files.
        slurmd = observed.substrate.exec("n1", ["slurmd", "-G", "-f", f"{folder}/slurm.conf"])
    finally:
        says(observed, f"rm -r {folder}")

    problems = [said for said in done.stdout.splitlines() if said.startswith("problem")]
    assert len(problems) == 1, done.stdout
    assert f"{folder}/cgroup.conf: CgroupReleaseAgentDir: today's Slurm rejects it" in problems[0]
    assert done.returncode == 1
    assert before.returncode == 0, before.stderr
    assert slurmd.returncode != 0
    assert "CgroupReleaseAgentDir" in slurmd.stdout + slurmd.stderr
