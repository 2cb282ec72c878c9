"""Another release on the kept state and database: what SchedMD allows works, what it does not is refused."""

from __future__ import annotations

import contextlib
import uuid

import docker.errors
import pytest

from slurm_testbed import SlurmCluster, engine
from slurm_testbed.compose.substrate import ComposeSubstrate
from slurm_testbed.doctor import diagnose_text
from slurm_testbed.errors import NotReadyError, UsageError
from slurm_testbed.images import exists, image_name
from slurm_testbed.releases import Releases

KNOWN = Releases.load()
#: Pairs of releases that are built from releases.yaml, by whether the second takes over the first's state.
STEPS = [
    (old, new) for old in KNOWN.all for new in KNOWN.all if old.minor in {"20.11", "22.05", "24.11"} and old != new
]
#: From the default release always; the steps between older ones take as long again.
ALLOWED = [
    pytest.param(old.minor, new.minor, marks=() if old.version == KNOWN.default()[0].version else pytest.mark.deep)
    for old, new in STEPS
    if new.may_follow(old)
]


def need(*releases: str) -> None:
    """Say which image is missing, where one is."""
    client = engine.connect()
    for release in releases:
        if not exists(client, image_name("slurm-single-node", KNOWN.find(release).version)):
            pytest.skip(f"not checkable here because Slurm {release} is not built: invoke build --release {release}")


def version(slurm: SlurmCluster, daemon: str) -> str:
    """What a daemon says of its release."""
    return slurm.run([daemon, "-V"], host=slurm.host_of(daemon)).stdout.split()[1]


def states(slurm: SlurmCluster) -> dict[int, str]:
    """The states of all jobs in the accounting; one that is held has no record yet."""
    records = slurm.sacct("--allocations", "--allusers", "--format=JobID,State")
    return {int(record["JobID"]): record["State"] for record in records}


@pytest.mark.row("C-23.1", "C-23.2", "C-23.3", "C-23.4", "C-23.5")
@pytest.mark.parametrize(("old", "new"), ALLOWED)
def test_upgrade_keeps_the_running_job_and_the_accounting(old: str, new: str) -> None:
    need(old, new)
    with SlurmCluster(old, nodes=1) as slurm:
        before = (version(slurm, "slurmctld"), version(slurm, "slurmdbd"))
        done = slurm.sbatch(wrap="exit 3")
        done.wait()
        # It ends when it is told, so that it runs across the upgrade however long that takes.
        running = slurm.sbatch(wrap="until [ -e go ]; do sleep 0.1; done; echo through")
        running.wait(until={"RUNNING"})
        held = slurm.sbatch(wrap="true", hold=True)
        slurm.wait_until(
            lambda: states(slurm) == {done.id: "FAILED", running.id: "RUNNING"}, "both jobs in the accounting"
        )

        slurm.upgrade(new, hosts=["slurmdbd", "slurmctld", "slurmrestd"])

        after = (version(slurm, "slurmctld"), version(slurm, "slurmdbd"))
        assert (before, after) == ((KNOWN.find(old).version,) * 2, (KNOWN.find(new).version,) * 2)
        assert running.state == "RUNNING", "the job did not survive slurmctld's upgrade"
        assert "debug" in slurm.run(["sinfo"], host="n1").stdout, "the older release does not know all of slurm.conf"
        slurm.run(["touch", "go"], user="alice", workdir="/home/alice")
        assert running.wait().state == "COMPLETED"
        # Newer releases show no path for the output of a job that an older one took.
        assert slurm.read(f"/home/alice/slurm-{running.id}.out") == "through\n"
        assert held.record().reason == "JobHeldUser"

        slurm.upgrade(new)

        slurm.run(["scontrol", "release", str(held.id)])
        assert held.wait(120).state == "COMPLETED", "the upgraded node runs no job"
        expected = {done.id: "FAILED", running.id: "COMPLETED", held.id: "COMPLETED"}
        slurm.wait_until(lambda: states(slurm) == expected, "the jobs of both releases in the accounting", deadline=60)


@pytest.mark.parametrize(("old", "new"), ALLOWED)
def test_upgrade_keeps_images_of_ones_own_and_later_nodes_have_the_release(old: str, new: str) -> None:
    need(old, new)
    client = engine.connect()
    names = [image_name("slurm-single-node", KNOWN.find(release).version) for release in (old, new)]
    own = [f"{uuid.uuid4().hex}/{name}" for name in names[:1]]
    own.append(own[0].replace(KNOWN.find(old).version, KNOWN.find(new).version))
    try:
        for name, mine in zip(names, own, strict=True):
            client.images.get(name).tag(mine)
        with SlurmCluster(old, nodes=1, images={"n1": own[0]}) as slurm:
            slurm.upgrade(new)

            slurm.add_node("d1")

            assert isinstance(slurm.substrate, ComposeSubstrate)
            images = {host: slurm.substrate.container(host).attrs["Config"]["Image"] for host in ("n1", "d1")}
            assert images == {"n1": own[1], "d1": names[1]}
            assert slurm.nodes()["d1"]["Version"] == KNOWN.find(new).version
    finally:
        for mine in own:
            with contextlib.suppress(docker.errors.ImageNotFound):
                client.images.remove(mine)


@pytest.mark.row("C-23.6", "C-23.7", "C-23.8")
@pytest.mark.parametrize(
    ("old", "new", "hosts", "cause"),
    [
        ("22.05", "24.11", ["slurmdbd", "slurmctld"], "state-of-another-release"),
        # An older slurmdbd refuses nothing: it marks the database as its own, which the newer one then refuses.
        pytest.param("24.11", "22.05", ["slurmctld"], "state-of-another-cluster", marks=pytest.mark.deep),
    ],
    ids=["too-far", "downgrade"],
)
def test_forbidden_step_is_refused_and_leaves_the_state_untouched(
    old: str, new: str, hosts: list[str], cause: str
) -> None:
    need(old, new)
    with SlurmCluster(old, nodes=1) as slurm:
        done = slurm.sbatch(wrap="exit 3")
        done.wait()
        held = slurm.sbatch(wrap="true", hold=True)
        slurm.wait_until(lambda: states(slurm) == {done.id: "FAILED"}, "the job in the accounting")
        with pytest.raises(UsageError, match=f"Slurm {KNOWN.find(new).version} does not take over the state of"):
            slurm.upgrade(new)
        assert version(slurm, "slurmctld") == KNOWN.find(old).version, "a refused step touched the hosts"

        with pytest.raises(NotReadyError) as error:
            slurm.upgrade(new, hosts=hosts, force=True)
        slurm.upgrade(old, force=True)

        assert "fatal:" in str(error.value), error.value
        assert cause in diagnose_text(str(error.value)).names, error.value
        assert held.record().reason == "JobHeldUser", "the state was touched"
        assert states(slurm) == {done.id: "FAILED"}, "the accounting was touched"
