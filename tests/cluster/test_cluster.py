"""What only a cluster of several hosts has: hosts of their own, the shared tree, a login host, a network between."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import yaml

from slurm_testbed import ClusterKeys, SlurmCluster, engine, vm
from slurm_testbed.compose import ComposeSubstrate
from slurm_testbed.compose.project import PROJECT
from slurm_testbed.errors import EngineError, UnknownReleaseError, UsageError
from slurm_testbed.images import image_name
from slurm_testbed.pytest_plugin import note_cluster
from slurm_testbed.releases import Release

TREE = "/shared/slurm-config"


@pytest.fixture(scope="module")
def _hosts(slurm_release: Release, slurm_keys: ClusterKeys) -> Iterator[SlurmCluster]:
    with SlurmCluster(slurm_release.version, nodes=3, keys=slurm_keys) as cluster:
        yield cluster


@pytest.fixture
def hosts(request: pytest.FixtureRequest, _hosts: SlurmCluster, slurm_release: Release) -> SlurmCluster:
    """An idle cluster of three nodes, each a host."""
    note_cluster(request, _hosts, slurm_release)
    _hosts.reset()
    return _hosts


@pytest.fixture
def client() -> docker.DockerClient:
    """The engine."""
    return engine.connect()


@pytest.mark.smoke
def test_every_node_is_a_host_of_its_own(hosts: SlurmCluster) -> None:
    assert sorted(hosts.srun("hostname", nodes=3, ntasks_per_node=1).split()) == ["n1", "n2", "n3"]


@pytest.mark.smoke
def test_every_host_says_that_it_is_ready(hosts: SlurmCluster) -> None:
    said = {
        host.name: hosts.run(["slurm-ready"], host=host.name, check=False).stdout for host in hosts.substrate.hosts()
    }

    assert said == dict.fromkeys(said, "ready\n")
    assert {"database", "slurmdbd", "slurmctld", "slurmrestd", "client", "login", "n1"} < set(said)


def test_jobs_are_submitted_on_every_host_with_the_commands(hosts: SlurmCluster) -> None:
    for host in ("client", "login", "n3", "slurmctld"):
        done = hosts.run(["sbatch", "--parsable", "--wrap=hostname"], host=host, user="alice", workdir="/home/alice")
        assert hosts.job(int(done.stdout)).wait().state == "COMPLETED", host


def test_a_users_home_is_the_same_everywhere(hosts: SlurmCluster) -> None:
    job = hosts.sbatch(wrap="echo written on $SLURMD_NODENAME > here.txt", nodelist="n2")
    job.wait()

    assert hosts.read("/home/alice/here.txt", host="client") == "written on n2\n"


@pytest.mark.row("H-05.1", "H-05.3", "H-06.1", "H-06.2")
def test_the_head_node_gives_configuration_and_keys_to_the_others(hosts: SlurmCluster, slurm_keys: ClusterKeys) -> None:
    listing = hosts.run(["stat", "--format=%n %U:%G %a", f"{TREE}/slurm.conf", f"{TREE}/munge.key"], host="n1")

    assert listing.stdout.splitlines() == [f"{TREE}/slurm.conf root:root 644", f"{TREE}/munge.key munge:munge 400"]
    for host in ("n1", "client", "login", "slurmdbd", "slurmrestd"):
        assert hosts.run(["readlink", "/etc/slurm/slurm.conf"], host=host).stdout.strip() == f"{TREE}/slurm.conf"
        key = hosts.run(["stat", "--format=%U:%G %a", "/etc/munge/munge.key"], host=host).stdout.strip()
        assert key == "munge:munge 400", host
        started = hosts.substrate.logs(host)
        assert f"{slurm_keys.munge.fingerprint} (from {TREE}/munge.key)" in started, host


def test_no_user_reads_a_key_on_the_shared_tree(hosts: SlurmCluster) -> None:
    for key in ("munge.key", "jwt_hs256.key"):
        assert hosts.run(["cat", f"{TREE}/{key}"], host="client", user="alice", check=False).returncode != 0


def test_login_host_takes_the_key_that_was_made_and_no_other_way_in(hosts: SlurmCluster, tmp_path: Path) -> None:
    config = hosts.ssh_config("bob")
    inside = subprocess.run(
        ["ssh", "-F", config, "login", "id -un; sbatch --parsable --wrap true"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    keyless = tmp_path / "config"
    keyless.write_text("\n".join(line for line in config.read_text().splitlines() if "IdentityFile" not in line))
    outside = subprocess.run(
        ["ssh", "-F", keyless, "-o", "IdentityFile=none", "-o", "BatchMode=yes", "login", "id"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert inside.returncode == 0, inside.stderr
    user, job = inside.stdout.split()
    assert (user, hosts.job(int(job)).wait().state) == ("bob", "COMPLETED")
    assert outside.returncode == 255
    assert "Permission denied (publickey)" in outside.stderr
    assert (config.parent / "id_ed25519").stat().st_mode & 0o777 == 0o600


def test_node_off_the_network_comes_back(hosts: SlurmCluster) -> None:
    hosts.substrate.network("n3", "cut")
    try:
        # A node whose name is not found is asked for in vain: down without the minute of SlurmdTimeout.
        hosts.run(["scontrol", "update", "NodeName=n3", "State=DOWN", "Reason=cut"])
        assert hosts.srun("hostname", nodes=2, ntasks_per_node=1).split().count("n3") == 0
    finally:
        hosts.substrate.network("n3", "restore")
    hosts.run(["scontrol", "update", "NodeName=n3", "State=RESUME"])

    hosts.wait_until(lambda: hosts.nodes()["n3"]["State"] == "IDLE", "n3 to be idle again", deadline=60)
    assert hosts.srun("hostname", nodelist="n3").strip() == "n3"


def test_host_is_cut_and_restored_once(hosts: SlurmCluster) -> None:
    with pytest.raises(UsageError, match="n2 is not cut"):
        hosts.substrate.network("n2", "restore")
    hosts.substrate.network("n2", "cut")
    try:
        with pytest.raises(UsageError, match="n2 is cut already"):
            hosts.substrate.network("n2", "cut")
    finally:
        hosts.substrate.network("n2", "restore")

    hosts.wait_until(lambda: hosts.nodes()["n2"]["State"] == "IDLE", "n2 to be back")


def test_two_clusters_do_not_meet(hosts: SlurmCluster, slurm_release: Release) -> None:
    with SlurmCluster(slurm_release.version, nodes=1) as other:
        job = other.sbatch(wrap="true")
        job.wait()
        # slurmctld tells slurmdbd of a job a moment after it has ended.
        theirs = other.wait_until(lambda: other.sacct("--allusers", "--allocations"), "the job in the accounting")
        ours = hosts.nodes()
        found = other.run(["getent", "hosts", "n3"], host="client", check=False)

        assert len(theirs) == 1
        assert set(other.nodes()) == {"n1"}
        assert set(ours) == {"n1", "n2", "n3"}
        assert found.returncode != 0, "a host of another cluster is in the name service"


def test_several_hosts_must_share_the_folder_of_on_path(hosts: SlurmCluster, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} is not shared with this cluster"), hosts.on_path(tmp_path):
        pass


def test_two_keys_for_one_cluster_are_one_clear_sentence(hosts: SlurmCluster) -> None:
    assert isinstance(hosts.substrate, ComposeSubstrate)
    assert hosts.keys is not None
    n3 = hosts.substrate.container("n3")
    hosts.substrate.put("n3", {"/run/secrets/munge.key": bytes(128)}, mode=0o400)
    n3.restart(timeout=5)
    try:
        assert n3.wait(timeout=60)["StatusCode"] == 1
        said = hosts.substrate.logs("n3").split("ready:")[-1]
    finally:
        hosts.substrate.put("n3", {"/run/secrets/munge.key": hosts.keys.munge.data}, mode=0o400)
        n3.start()

    assert "two munge keys for one cluster: /run/secrets/munge.key is SHA256:" in said
    assert f"{TREE}/munge.key is {hosts.keys.munge.fingerprint}" in said
    hosts.run(["slurm-ready", "--wait", "60"], host="n3")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"nodes": 0}, UsageError, "a cluster has at least one node, not 0"),
        ({"release": "1.2"}, UnknownReleaseError, "1.2"),
        ({"shared_nfs": "nowhere"}, UsageError, "nowhere names no NFS export"),
        ({"stack": "hubb"}, UsageError, "there is no stack hubb"),
    ],
)
def test_wrong_argument_is_one_sentence(options: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SlurmCluster(**options)  # type: ignore[arg-type]


def test_cluster_without_a_hub_says_how_to_get_one(hosts: SlurmCluster) -> None:
    with pytest.raises(UsageError, match="this cluster has no hub") as error:
        _ = hosts.hub

    assert 'SlurmCluster(stack="hub")' in error.value.hint


def test_host_that_does_not_exist_is_named_with_those_that_do(hosts: SlurmCluster) -> None:
    with pytest.raises(UsageError, match="no host n9") as error:
        hosts.run(["true"], host="n9")

    assert "n1, n2, n3" in error.value.hint


def test_failed_start_says_why_and_leaves_nothing(slurm_release: Release, client: docker.DockerClient) -> None:
    cluster = SlurmCluster(slurm_release.version, nodes=1, env={"SLURM_CGROUP": "v9"})

    with pytest.raises(EngineError, match="SLURM_CGROUP=v9 is none of auto, none, v1, v2"):
        cluster.start()

    left = {"label": f"{PROJECT}={cluster.name}"}
    assert not client.containers.list(all=True, ignore_removed=True, filters=left)
    assert not client.networks.list(filters=left)
    assert not client.volumes.list(filters=left)


def test_nothing_is_left_of_a_stopped_cluster(slurm_release: Release, client: docker.DockerClient) -> None:
    with SlurmCluster(slurm_release.version, nodes=1) as cluster:
        left = {"label": f"{engine.LABEL_CLUSTER}={cluster.name}"}
        assert client.containers.list(filters=left), "our label is missing"
        folder = cluster.ssh_config().parent

    assert not client.containers.list(all=True, ignore_removed=True, filters=left)
    assert not client.networks.list(filters=left)
    assert not client.volumes.list(filters=left)
    assert not folder.exists(), "the key of ssh is left"


def test_restart_keeps_jobs_and_accounting(hosts: SlurmCluster) -> None:
    job = hosts.sbatch(wrap="true")
    job.wait()
    waiting = hosts.sbatch(wrap="true", hold=True)
    assert isinstance(hosts.substrate, ComposeSubstrate)

    hosts.substrate.container("slurmctld").restart(timeout=10)
    hosts.run(["slurm-ready", "--wait", "60"])

    assert waiting.record().reason == "JobHeldUser"
    assert hosts.sacct(f"--jobs={job.id}", "--allocations", "--format=State")[0]["State"] == "COMPLETED"


def test_hosts_wait_as_long_as_the_cluster_may_take(hosts: SlurmCluster, client: docker.DockerClient) -> None:
    # A virtual machine is slower than its host, and so are deadlines in it longer.
    deadline = math.ceil(hosts.deadline * vm.place_of(client).speed)

    told = {host: hosts.run(["printenv", "SLURM_TESTBED_DEADLINE"], host=host).stdout for host in ("n1", "slurmdbd")}

    assert told == {"n1": f"{deadline}\n", "slurmdbd": f"{deadline}\n"}


def test_host_whose_deadline_passes_before_the_others_are_up_is_ready_all_the_same(
    slurm_release: Release, tmp_path: Path
) -> None:
    impatient = {"SLURM_TESTBED_DEADLINE": "1", "SLURM_TESTBED_JOIN_DEADLINE": "60"}
    override = tmp_path / "impatient.yaml"
    override.write_text(yaml.safe_dump({"services": {"slurmdbd": {"environment": impatient}}}))

    with SlurmCluster(slurm_release.version, nodes=1, files=[override]) as slurm:
        slurm.substrate.service("database", "mariadbd", "stop")
        slurm.substrate.container("slurmdbd").restart()
        before = len(slurm.substrate.logs("slurmdbd"))
        slurm.wait_until(
            lambda: "waited 1 s for slurmdbd to start" in slurm.substrate.logs("slurmdbd")[before:],
            "slurmdbd's host to say that its deadline has passed",
            deadline=60,
        )
        meanwhile = slurm.substrate.exec("slurmdbd", ["slurm-ready"])
        slurm.substrate.service("database", "mariadbd", "start")
        done = slurm.substrate.exec("slurmdbd", ["slurm-ready", "--wait", "60"])
        told = slurm.substrate.logs("slurmdbd")[before:]

    assert "slurmdbd does not listen" in meanwhile.stdout
    assert done.returncode == 0, done.stderr
    assert "ready: Slurm" in told


def test_one_host_is_started_beside_another_that_has_done_its_work(slurm_release: Release, tmp_path: Path) -> None:
    image = image_name("slurm-client", slurm_release.version)
    slow = {"entrypoint": ["bash", "-c", 'sleep 3; exec slurm-entrypoint "$$@"', "slow"]}
    override = tmp_path / "once.yaml"
    once = {"image": image, "entrypoint": "true", "network_mode": "none"}
    override.write_text(yaml.safe_dump({"services": {"n1": slow, "once": once}}))

    with SlurmCluster(slurm_release.version, nodes=1, files=[override]) as slurm:
        slurm.substrate.container("n1").stop()
        slurm.start_hosts(["n1"])

        assert slurm.substrate.exec("n1", ["slurm-ready"]).returncode == 0
        assert slurm.project.containers(engine.connect())["once"].status == "exited"
