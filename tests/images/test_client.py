"""slurm-client beside a cluster: with its key, with another one, and as the base of other images."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from slurm_testbed import ClusterKeys, SlurmContainer
from slurm_testbed.rest import Rest
from tests.images.conftest import Image, our_labels

#: What a client with another munge key says: docs/faults.md.
OTHER_KEY = {
    "20.11": "Zero Bytes were transmitted or received",
    "22.05": "Zero Bytes were transmitted or received",
    "24.11": "Protocol authentication error",
    "26.05": "Protocol authentication error",
}


@pytest.fixture
def cluster_key(tmp_path: Path, slurm_keys: ClusterKeys) -> Path:
    """The cluster's munge key in a file."""
    return slurm_keys.munge.write(tmp_path / "munge.key")


@pytest.mark.row("C-02")
def test_client_runs_nothing_but_munged(client_image: Image) -> None:
    with client_image.started() as client:
        names = set(client.run(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout.split())

    assert "munged" in names
    assert not names & {"slurmctld", "slurmd", "slurmdbd", "slurmrestd", "mariadbd"}, names


@pytest.mark.row("C-02")
@pytest.mark.parametrize(
    "setting", ["SLURMCTLD_HOST={}", "SLURM_CONF_SERVER={}:6817"], ids=["own configuration", "configless"]
)
def test_client_with_the_clusters_key_submits(
    client_image: Image, slurm_cluster: SlurmContainer, cluster_key: Path, setting: str
) -> None:
    options = [
        f"--network={slurm_cluster.network_name}",
        f"--env={setting.format(slurm_cluster.name)}",
        f"--volume={cluster_key}:/tmp/munge/munge.key:ro",
    ]
    script = "sinfo --noheader --format=%N; srun hostname; sbatch --parsable --output=/dev/null --wrap=true"

    done = client_image.run("sh", "-c", script, options=options)

    assert done.returncode == 0, done.stderr
    nodes, host, job = done.stdout.split()
    assert (nodes, host) == ("n1", slurm_cluster.name)
    assert slurm_cluster.job(int(job)).wait().state == "COMPLETED"


@pytest.mark.row("C-14.1")
def test_client_with_another_key_gets_the_releases_known_error(
    client_image: Image, slurm_cluster: SlurmContainer, key_file: Path
) -> None:
    options = [
        f"--network={slurm_cluster.network_name}",
        f"--env=SLURMCTLD_HOST={slurm_cluster.name}",
        f"--volume={key_file}:/tmp/munge/munge.key:ro",
    ]
    done = client_image.run("sinfo", options=options)

    assert done.returncode != 0
    assert OTHER_KEY[client_image.release.minor] in done.stderr


@pytest.fixture
def derived(client_image: Image) -> Iterator[str]:
    """An image of somebody else, FROM slurm-client, whose command is slurmrestd."""
    name = f"slurm-testbed-derived:{secrets.token_hex(4)}"
    dockerfile = f'FROM {client_image.name}\nRUN id alice\nEXPOSE 6820\nCMD ["slurmrestd"]\n'
    client_image.client.images.build(
        fileobj=io.BytesIO(dockerfile.encode()), tag=name, labels=our_labels(name), rm=True
    )
    yield name
    client_image.client.images.remove(name, force=True)


@pytest.mark.row("C-02", "C-04a.1")
def test_image_derived_from_the_client_runs_slurmrestd(
    derived: str, client_image: Image, slurm_cluster: SlurmContainer, cluster_key: Path
) -> None:
    options = [
        f"--network={slurm_cluster.network_name}",
        f"--env=SLURMCTLD_HOST={slurm_cluster.name}",
        f"--volume={cluster_key}:/tmp/munge/munge.key:ro",
        "--publish=127.0.0.1::6820",
    ]
    image = Image(derived, client_image.release, client_image.client, full_name=derived)
    with image.started(options=options) as rest:
        host, port = rest.substrate.endpoint("slurmrestd", 6820)
        url = f"http://{host}:{port}"
        assert requests.get(f"{url}/slurm/{image.release.rest[-1]}/jobs", timeout=20).status_code == 401

        answer = Rest(url, "alice", slurm_cluster.token("alice")).get("ping")

    assert answer["pings"][0]["hostname"] == slurm_cluster.controller
