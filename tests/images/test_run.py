"""What `docker run` does with a command, with bad settings, without root and on the host's network."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock

from tests.images.conftest import RUNNABLE, Image

#: Ports that a single node opens on the host's network.
PORTS = (6817, 6818, 6819, 6820)


# --- a command in place of the cluster -------------------------------------------------------------------


# slurm-jupyter-notebook is no part of a cluster before it has been given a key, and slurm-viz is a node of one.
@pytest.mark.parametrize(
    "target", [target for target in RUNNABLE if target not in {"slurm-jupyter-notebook", "slurm-viz"}]
)
def test_command_takes_the_clusters_place(image: Image) -> None:
    done = image.run("echo", "hi")

    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
    assert done.stderr == "", "the start is silent unless SLURM_TESTBED_VERBOSE is set"


@pytest.mark.parametrize("target", ["slurm-client", "slurm-single-node"])
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [(["sh", "-c", "echo done; exit 3"], 3, "done\n"), (["no-such-command"], 127, "")],
    ids=["its own", "unknown command"],
)
def test_exit_status_is_passed_on(image: Image, command: list[str], status: int, said: str) -> None:
    done = image.run(*command, options=["--env=SLURM_ACCOUNTING=no"])

    assert (done.returncode, done.stdout) == (status, said), done.stderr
    assert status != 127 or "no-such-command" in done.stderr


@pytest.mark.parametrize("target", ["slurm-client", "slurm-single-node"])
def test_standard_input_is_passed_on(image: Image) -> None:
    done = image.run("cat", stdin="line\n" * 1000, options=["--env=SLURM_ACCOUNTING=no"])

    assert done.returncode == 0, done.stderr
    assert done.stdout == "line\n" * 1000


@pytest.mark.row("C-07.6")
@pytest.mark.parametrize("target", ["slurm-client", "slurm-single-node"])
def test_entrypoint_bash_gives_a_shell(image: Image) -> None:
    done = image.run(stdin="echo $((6 * 7)); id -un; exit 5\n", options=["--entrypoint=bash"])

    assert (done.returncode, done.stdout) == (5, "42\nroot\n"), done.stderr


@pytest.mark.row("C-05.2")
@pytest.mark.parametrize("target", ["slurm-client", "slurm-single-node"])
def test_daemon_tells_its_version_and_nothing_starts(image: Image) -> None:
    done = image.run("slurmctld", "-V")

    name = {"compiled": "slurm", "packaged": "slurm-wlm"}[image.slurm]
    assert (done.returncode, done.stdout) == (0, f"{name} {image.release}\n"), done.stderr


def test_command_runs_as_the_user_that_is_asked_for(image: Image) -> None:
    options = ["--env=SLURM_ACCOUNTING=no", "--env=SLURM_TESTBED_USER=bob"]
    done = image.run("sh", "-c", "id -un; pwd; echo $HOME $USER", options=options)

    assert done.stdout.splitlines() == ["bob", "/home/bob", "/home/bob bob"], done.stderr


def test_job_runs_by_one_command_and_its_exit_status_is_the_containers(image: Image) -> None:
    script = "echo $SLURM_JOB_ID; id -un; exit 4"
    done = image.run("srun", "sh", "-c", script, options=["--env=SLURM_ACCOUNTING=no"])

    assert (done.returncode, done.stdout.split()) == (4, ["1", "alice"]), done.stderr


def test_start_is_told_on_demand(image: Image) -> None:
    done = image.run("true", options=["--env=SLURM_TESTBED_VERBOSE=1", "--env=SLURM_ACCOUNTING=no"])

    assert done.returncode == 0
    assert f"ready: Slurm {image.release}, cluster" in done.stderr
    packaged = f"release: Slurm {image.release} from Debian's packages" in done.stderr
    assert packaged == (image.slurm == "packaged"), done.stderr


# --- bad settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--env=SLURM_NODES=0"], "SLURM_NODES=0 is not a number of nodes."),
        (["--env=SLURM_ACCOUNTING=maybe"], "SLURM_ACCOUNTING=maybe is neither yes nor no."),
        (["--env=SLURM_CGROUP=v3"], "SLURM_CGROUP=v3 is none of auto, none, v1, v2."),
        (["--env=SLURM_TESTBED_USER=nobody2"], "SLURM_TESTBED_USER=nobody2 is no user of this image."),
        (["--user=1000"], "the daemons start as root and give it up themselves; this container runs as uid 1000."),
    ],
    ids=["no nodes", "accounting", "cgroup", "user", "not root"],
)
def test_bad_setting_is_one_sentence_with_a_hint(image: Image, options: list[str], sentence: str) -> None:
    done = image.run(options=options)

    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert done.stdout == ""
    assert lines[0] == f"slurm-testbed: {sentence}"
    assert lines[1].startswith("slurm-testbed: hint: ")
    assert len(lines) == 2, done.stderr


def test_unknown_role_is_one_sentence_with_those_there_are(image: Image) -> None:
    done = image.run("slurmctl")

    assert done.returncode == 127
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "slurm-testbed: slurmctl is neither a role nor a command of this image.",
        "slurm-testbed: hint: its roles: cluster client database login slurmctld slurmdbd slurmd slurmrestd.",
    ]


def test_cgroups_that_cannot_be_had_end_the_start_with_the_reason(image: Image) -> None:
    # Neither v1 nor v2 can be set up without a capability.
    version = "v2" if image.client.info()["CgroupVersion"] == "2" else "v1"
    done = image.run(options=[f"--env=SLURM_CGROUP={version}"])

    assert done.returncode == 1
    assert f"cgroup {version} cannot be used: " in done.stderr
    assert "--cap-add SYS_ADMIN" in done.stderr


@pytest.mark.parametrize("command", [[], ["sinfo"]], ids=["cluster", "command"])
def test_daemon_that_does_not_come_up_ends_the_container_with_the_reason(image: Image, command: list[str]) -> None:
    # There is no such port.
    options = ["--env=SLURM_TESTBED_DEADLINE=5", "--env=SLURMRESTD_PORT=66000"]

    done = image.run(*command, options=options)

    assert done.returncode == 1, done.stderr
    assert "slurm-testbed: waited 5 s for the daemons to answer" in done.stderr
    assert "slurm-testbed: hint: " in done.stderr


def test_volume_on_shared_is_a_folder_like_another_where_one_host_is_the_cluster(image: Image) -> None:
    # In a cluster of several hosts the head node's key would be awaited there.
    done = image.run("sinfo", "--noheader", options=["--tmpfs=/shared", "--env=SLURM_TESTBED_JOIN_DEADLINE=5"])

    assert done.returncode == 0, done.stderr


@pytest.mark.row("C-02")
@pytest.mark.parametrize("target", ["slurm-client"])
@pytest.mark.parametrize("role", ["slurmctld", "slurmd", "cluster"])
def test_clients_image_refuses_a_clusters_role(image: Image, role: str) -> None:
    done = image.run(role)

    assert done.returncode == 1
    assert "use slurm-single-node, which" in done.stderr.splitlines()[1], done.stderr


# --- networks and privileges -----------------------------------------------------------------------------


@pytest.mark.row("C-06.1")
def test_hosts_network_carries_a_cluster(image: Image) -> None:
    # Its ports are the host's: one such cluster at a time on a machine.
    with FileLock(Path(tempfile.gettempdir(), "slurm-testbed-host-network.lock"), timeout=120):
        taken = [port for port in PORTS if _listens(port)]
        if taken:
            pytest.skip(f"not checkable here because something listens on {taken} of this machine")
        with image.started(options=["--network=host"]) as slurm:
            assert slurm.srun("hostname").strip() == slurm.run(["hostname"]).stdout.strip()
            heard = slurm.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).stdout

    for port in PORTS:
        assert f":{port:04X} " in heard, f"nothing listened on the host's port {port}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


#: Clusters, accounts and users that slurmdbd has; then the cluster's age in hours.
DATABASE = """
    for what in cluster account user; do sacctmgr -nP show $what format=$what; done
    mariadb --socket=/run/mysqld/mysqld.sock --user=slurm --skip-ssl -N slurm_acct_db -e '
      select floor((unix_timestamp() - creation_time) / 3600) from cluster_table'
"""

#: Accounts of a site's own, as `sacctmgr dump` writes them.
PHYSICS = """
Cluster - 'testbed'
Parent - 'root'
Account - 'physics'
Parent - 'physics'
User - 'carol':DefaultAccount='physics'
"""


def in_database(image: Image, *options: str) -> list[str]:
    done = image.run("bash", "-ec", DATABASE, options=[*options, "--env=SLURM_TESTBED_USER=root"])
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line != "root"]


@pytest.mark.smoke
@pytest.mark.parametrize("target", ["slurm-single-node"], indirect=True)
def test_database_has_a_new_cluster_with_the_default_accounts(image: Image) -> None:
    assert in_database(image) == ["testbed", "research", "alice", "bob", "carol", "dave", "0"]


@pytest.mark.smoke
@pytest.mark.parametrize("target", ["slurm-single-node"], indirect=True)
def test_cluster_of_another_name_is_the_only_one(image: Image) -> None:
    accounts = ["research", "alice", "bob", "carol", "dave"]

    assert in_database(image, "--env=SLURM_CLUSTER_NAME=other") == ["other", *accounts, "0"]


@pytest.mark.parametrize("target", ["slurm-single-node"], indirect=True)
def test_accounts_of_a_file_take_the_place_of_the_default_ones(image: Image, tmp_path: Path) -> None:
    file = tmp_path / "accounts.cfg"
    file.write_text(PHYSICS.lstrip())

    assert in_database(image, f"--volume={file}:/etc/slurm/accounts.cfg:ro") == ["testbed", "physics", "carol", "0"]


@pytest.mark.parametrize("target", ["slurm-single-node"], indirect=True)
def test_each_cluster_has_an_id_of_its_own(image: Image, not_checkable: Callable[[str, str], NoReturn]) -> None:
    command = ["sed", "-n", r"s/.*ClusterID=\([0-9]*\).*/\1/p", "/var/log/slurm/slurmctld.log"]
    ids = [image.run(*command, options=["--env=SLURM_TESTBED_USER=root"]).stdout.strip() for _ in range(3)]
    if ids == [""] * 3:
        not_checkable("cluster_ids", f"clusters of Slurm {image.release.version} have no id")

    assert len(set(ids)) > 1, f"all three have the id {ids[0]}"
