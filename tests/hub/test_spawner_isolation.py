"""Users are isolated: neither server nor files nor tokens of another, and no way into the hub."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from fixtures.hub import Server, spawn
from slurm_testbed import SlurmCluster

pytestmark = pytest.mark.hub_config("ours.py", "asked.py", "quick.py")


def token_of(server: Server) -> str:
    """The token by which a server speaks to the hub, from its own environment."""
    script = f"""
        for process in /proc/[0-9]*; do
            [ "$(tr '\\0' '\\n' < $process/environ | sed -n s/^SLURM_JOB_ID=//p)" = {server.job.id} ] || continue
            tr '\\0' '\\n' < $process/environ | sed -n s/^JUPYTERHUB_API_TOKEN=//p
        done 2> /dev/null
    """
    (token,) = set(server.slurm.run(["bash", "-c", script], host=server.job.record().nodes).stdout.split())
    return token


@pytest.mark.row("H-21.1")
def test_one_user_reaches_neither_server_nor_files_of_another(hub_cluster: SlurmCluster) -> None:
    with ThreadPoolExecutor() as threads:
        alices, bobs = threads.map(lambda user: spawn(hub_cluster, user), ("alice", "bob"))

    alices.ask("PUT", "contents/secret.txt", json={"type": "file", "format": "text", "content": "mine"})
    answer = requests.get(
        f"{alices.url}api/contents/secret.txt", headers={"Authorization": f"token {bobs.token}"}, timeout=30
    )
    assert answer.status_code in {403, 404}
    assert "mine" not in answer.text
    listed = bobs.start_kernel().run(
        "import subprocess as s; print(s.run(['cat', '/shared/notebooks/alice/secret.txt'], capture_output=True, "
        "text=True).stderr)"
    )
    assert "Permission denied" in listed
    # The hub's API, with the token that bob's server has.
    headers = {"Authorization": f"token {token_of(bobs)}"}
    for method, path in (("GET", "users/alice"), ("DELETE", "users/alice/server"), ("POST", "users/alice/tokens")):
        refused = requests.request(method, f"{hub_cluster.hub.url}/hub/api/{path}", headers=headers, timeout=30)
        assert refused.status_code in {403, 404}, (path, refused.text)
    assert alices.get("contents/secret.txt")["content"] == "mine"


@pytest.mark.row("H-21.1")
def test_server_has_no_command_run_by_the_hub(hub_cluster: SlurmCluster) -> None:
    """Stock batchspawner sets what it is told, and runs it as root at the next question for the job."""
    server = spawn(hub_cluster, "alice")
    body = {"port": 1, "exec_prefix": "touch /tmp/owned; sudo -E -u {username}"}

    told = requests.post(
        f"{hub_cluster.hub.url}/hub/api/batchspawner",
        json=body,
        headers={"Authorization": f"token {token_of(server)}"},
        timeout=30,
    )
    server.stop()

    assert told.status_code == 400, told.text
    assert hub_cluster.run(["test", "-e", "/tmp/owned"], host="hub", check=False).returncode == 1


@pytest.mark.deep
@pytest.mark.row("H-21.2")
def test_named_servers_are_servers_of_their_own(hub_cluster: SlurmCluster) -> None:
    with ThreadPoolExecutor() as threads:
        default, second = threads.map(lambda name: spawn(hub_cluster, "alice", name=name), ("", "second"))

    assert default.job.id != second.job.id
    assert second.url.endswith("/user/alice/second/")
    printed = second.start_kernel().run("import os; print(os.environ['SLURM_JOB_ID'])")
    assert int(printed) == second.job.id
    second.stop()
    assert second.job.wait(30).state == "CANCELLED"
    assert default.get("status")["kernels"] == 0
    assert default.job.record().state == "RUNNING"


@pytest.mark.row("H-21.3", "H-21.4", "H-21.5")
def test_token_is_nowhere_but_in_its_process(hub_cluster: SlurmCluster) -> None:
    server = spawn(hub_cluster, "alice")
    token, job = token_of(server), str(server.job.id)

    # What ps reads.
    processes = ["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '"]
    looks = {
        "scontrol": (["scontrol", "--details", "show", "job", job], "hub"),
        "script": (["scontrol", "write", "batch_script", job, "-"], "hub"),
        "sacct": (["sacct", "--jobs", job, "--format=SubmitLine%2000,Comment%200", "--parsable2"], "hub"),
        "the node's processes": (processes, server.job.record().nodes),
        "the hub's processes": (processes, "hub"),
    }
    seen = {name: hub_cluster.run(argv, host=host, user="bob", check=False) for name, (argv, host) in looks.items()}
    as_root = {name: hub_cluster.run(argv, host=host, check=False).stdout for name, (argv, host) in looks.items()}

    assert [name for name, done in seen.items() if token in done.stdout + done.stderr] == []
    assert "batchspawner-singleuser" in as_root["script"]
    assert "sbatch --parsable" in as_root["sacct"]
    assert "jupyterhub-singleuser" in seen["the node's processes"].stdout, "bob sees that alice's server runs"
    assert f"JobId={job}" in seen["scontrol"].stdout
    # root may look into a process of the node; the rest has no token for anybody.
    assert [name for name, text in as_root.items() if token in text] == ["the node's processes"]
    logs = hub_cluster.substrate.logs("hub", "jupyterhub")
    logs += hub_cluster.run(["sh", "-c", "cat /shared/jupyterhub-logs/*"]).stdout
    assert "Submitting the script" in logs, "the hub logs all it can"
    assert token not in logs
