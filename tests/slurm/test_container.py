"""SlurmContainer itself: settings, errors, cleaning up, and two that do not meet."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import docker
import pytest
from docker.models.images import ImageCollection
from testcontainers.core.container import DockerContainer

from slurm_testbed import ClusterKeys, Slurm, SlurmContainer, engine
from slurm_testbed.container import SlurmClient
from slurm_testbed.errors import EngineError, NotReadyError, UsageError
from slurm_testbed.releases import Release


@pytest.fixture(scope="session")
def client() -> docker.DockerClient:
    return engine.connect()


def test_scheduler_has_read_its_parameters_before_the_first_job(slurm_release: Release) -> None:
    if slurm_release.packages:
        pytest.skip(f"not checkable here because {slurm_release} comes from packages: scheduler-pass is compiled")
    if slurm_release.number >= (25, 11):
        pytest.skip(
            f"not checkable here because slurmctld {slurm_release} makes no pass for a job that it does not know"
        )
    with SlurmContainer(slurm_release.version, accounting=False) as slurm:
        slurm.sbatch(wrap="true").wait()
        log = slurm.substrate.logs(slurm.controller, "slurmctld")

    started = re.search(r"(Allocate|Started) JobId=1 ", log)
    assert started, log
    assert "SchedulerParameters=" in log[: started.start()], log


@pytest.mark.smoke
def test_slurmctld_warns_of_none_of_our_settings(slurm_release: Release) -> None:
    with SlurmContainer(slurm_release.version) as slurm:
        log = slurm.substrate.logs(slurm.controller, "slurmctld")

    assert "slurmctld version" in log
    assert [line for line in log.splitlines() if "warning:" in line or "Invalid" in line] == []


@pytest.mark.row("U-02.2", "U-02.3")
def test_cluster_has_the_keys_that_the_suite_made(slurm: Slurm, slurm_keys: ClusterKeys) -> None:
    munge = slurm.run(["sha256sum", "/etc/munge/munge.key"]).stdout[:16]
    jwt = slurm.run(["sha256sum", "/etc/slurm/jwt_hs256.key"]).stdout[:16]

    assert (f"SHA256:{munge}", f"SHA256:{jwt}") == (slurm_keys.munge.fingerprint, slurm_keys.jwt.fingerprint)


@pytest.mark.vm
@pytest.mark.row("U-02.4")
def test_two_clusters_do_not_meet(slurm_release: Release, slurm: Slurm) -> None:
    with SlurmContainer(slurm_release.version, accounting=False) as other:
        job = other.sbatch(wrap="true", hold=True)

        assert job.id == 1, "a fresh cluster's first job has another id"
        assert slurm.queue() == [], "a job of another cluster is in the queue"
        assert other.rest_url() != slurm.rest_url()


def test_configuration_fragment_replaces_ours(slurm_release: Release) -> None:
    partitions = "PartitionName=day Nodes=n1 Default=YES MaxTime=60\nPartitionName=night Nodes=n2\n"
    with SlurmContainer(
        slurm_release.version, nodes=2, accounting=False, conf={"70-partitions.conf": partitions}
    ) as slurm:
        answer = slurm.run(["sinfo", "--noheader", "--format=%R %l %N"]).stdout

    assert answer.splitlines() == ["day 1:00:00 n1", "night infinite n2"]


@pytest.mark.smoke
def test_job_that_no_node_can_launch_is_told_at_once(slurm_release: Release) -> None:
    with SlurmContainer(
        slurm_release.version, accounting=False, conf={"80-prolog.conf": "Prolog=/bin/false\n"}
    ) as slurm:
        job = slurm.sbatch(wrap="true")
        with pytest.raises(
            NotReadyError, match=rf"for job {job.id} to be over; last seen: a node could not launch it"
        ) as error:
            job.wait(deadline=600)

        assert "(launch_failed_requeued_held)" in error.value.last_state
        assert "sinfo --list-reasons" in error.value.hint


def test_nothing_is_left_after_the_with_block(slurm_release: Release, client: docker.DockerClient) -> None:
    with SlurmContainer(slurm_release.version, accounting=False) as slurm:
        name = slurm.name

    assert client.containers.list(all=True, ignore_removed=True, filters={"name": name}) == []
    assert client.networks.list(names=[name]) == []


def test_missing_image_is_one_sentence_and_leaves_nothing(client: docker.DockerClient) -> None:
    cluster = SlurmContainer(image="slurm-testbed/slurm-single-node:0.0.0")

    with pytest.raises(EngineError, match="there is no image slurm-testbed/slurm-single-node:0.0.0") as error:
        cluster.start()

    assert "invoke build" in error.value.hint
    assert client.networks.list(names=[cluster.name]) == []


def test_bad_setting_is_told_in_the_images_own_words(slurm_release: Release) -> None:
    with pytest.raises(EngineError, match="SLURM_CGROUP=v9 is none of auto, none, v1, v2"):
        SlurmContainer(slurm_release.version, env={"SLURM_CGROUP": "v9"}).start()


def test_no_nodes_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one node, not 0"):
        SlurmContainer(nodes=0)


def test_ctrl_c_leaves_nothing(slurm_release: Release, client: docker.DockerClient, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import os, signal
        from slurm_testbed import SlurmContainer
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        with SlurmContainer({slurm_release.version!r}, accounting=False) as slurm:
            print(slurm.name, flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            slurm.sbatch(wrap="true").wait(until=set())
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    name = done.stdout.strip()
    assert name, done.stderr
    assert "KeyboardInterrupt" in done.stderr
    assert client.containers.list(all=True, ignore_removed=True, filters={"name": name}) == []
    assert client.networks.list(names=[name]) == []


def test_ctrl_c_before_the_engines_answer_leaves_nothing(
    slurm_release: Release, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DockerContainer.start

    def start(container: DockerContainer) -> DockerContainer:
        real(container)
        container._container = None  # the answer that never came
        raise KeyboardInterrupt

    monkeypatch.setattr(DockerContainer, "start", start)
    slurm = SlurmContainer(slurm_release.version, accounting=False)

    with pytest.raises(KeyboardInterrupt):
        slurm.start()

    assert client.containers.list(all=True, ignore_removed=True, filters={"name": slurm.name}) == []
    assert client.networks.list(names=[slurm.name]) == []


def test_killed_process_leaves_what_the_start_of_the_next_one_removes(
    slurm_release: Release, client: docker.DockerClient, tmp_path: Path
) -> None:
    script = textwrap.dedent(
        f"""
        import os, signal
        from slurm_testbed import SlurmContainer
        slurm = SlurmContainer({slurm_release.version!r}, accounting=False).start()
        print(slurm.name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    name = done.stdout.strip()
    assert name, done.stderr

    # Another worker's sweep may have come first; what counts is that nothing is left after this one.
    following = script.replace("os.kill(os.getpid(), signal.SIGKILL)", "slurm.stop()")
    subprocess.run([sys.executable, "-c", following], cwd=tmp_path, check=True)

    assert client.containers.list(all=True, ignore_removed=True, filters={"name": name}) == []
    assert client.networks.list(names=[name]) == []


def test_image_whose_name_has_no_registry_is_never_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    pulled: list[str] = []
    monkeypatch.setattr(ImageCollection, "pull", lambda _, name: pulled.append(name))

    with pytest.raises(EngineError, match=r"there is no image my-slurm:24\.11"):
        SlurmContainer(image="my-slurm:24.11").start()

    assert pulled == []


@pytest.mark.vm
@pytest.mark.row("C-02")
def test_client_has_no_daemon_and_uses_the_cluster(slurm_release: Release) -> None:
    with SlurmContainer(slurm_release.version, accounting=False) as slurm, SlurmClient(slurm) as client:
        names = client.run(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout.split()
        host = client.run(["srun", "hostname"], user="alice").stdout.strip()
        job = client.run(["sbatch", "--parsable", "--output=/dev/null", "--wrap=true"], user="alice").stdout

        assert "munged" in names
        assert not {"slurmctld", "slurmd", "slurmdbd", "slurmrestd"} & set(names), names
        assert host == slurm.name
        assert slurm.job(int(job)).wait().state == "COMPLETED"
