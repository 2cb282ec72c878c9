"""slurm.conf and munge.key come to the servers of a hub by the commands of zero-to-jupyterhub."""

from __future__ import annotations

import base64
import json
import os
import random
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.charts import Chart, find, pods
from slurm_testbed import data

#: Every byte is in it, and what an editor, YAML or a shell might take for its own.
KEY = bytes(range(256)) + b"\r\n\t #: '\"{{ }}\x00\n"
CONF = 'ClusterName=site # a comment\nSlurmctldHost=head(192.0.2.7)\n\nNodeName=n[1-2] Gres="gpu:1"\n# {{ .Values }}\n'


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The document's own arguments, whose base64 breaks lines."""
    (tmp_path / "slurm.conf").write_text(CONF)
    (tmp_path / "munge.key").write_bytes(KEY)
    command = f"base64 {shlex.quote(str(tmp_path / 'munge.key'))} > {shlex.quote(str(tmp_path / 'munge.key.b64'))}"
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "munge.key.b64").read_text().count("\n") > 1
    return [
        f"--set-file=singleuser.extraFiles.slurm-conf.stringData={tmp_path}/slurm.conf",
        f"--set-file=singleuser.extraFiles.munge-key.binaryData={tmp_path}/munge.key.b64",
    ]


@pytest.mark.row("C-12.3")
def test_files_come_as_they_are(helm: Path, files: list[str]) -> None:
    manifests = Chart("slurm-jupyterhub", helm).template(*files)

    secret = find(manifests, "Secret", "-singleuser")["data"]
    assert base64.b64decode(secret["munge-key"], validate=True) == KEY
    assert base64.b64decode(secret["slurm-conf"], validate=True).decode() == CONF


def test_pods_of_users_have_the_files(hub_chart: Chart, files: list[str]) -> None:
    settings = json.loads(find(hub_chart.template(*files), "ConfigMap", "-singleuser")["data"]["singleuser.json"])

    mounts = {each["mountPath"]: each["subPath"] for each in settings["volume_mounts"]}
    assert mounts == {"/etc/slurm/slurm.conf": "slurm-conf", "/etc/munge/munge.key": "munge-key"}
    modes = {each["key"]: each["mode"] for each in settings["volumes"][0]["secret"]["items"]}
    assert modes == {"slurm-conf": 0o444, "munge-key": 0o440}
    # The group of the file is the pod's, so that its user may read it.
    assert settings["fs_gid"] == settings["uid"] == 1000


def test_hub_is_a_client_by_the_same_files(hub_chart: Chart, files: list[str]) -> None:
    pod = pods(hub_chart.template(*files))["t-slurm-jupyterhub"]

    mounts = {each["mountPath"]: each["subPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert mounts["/run/secrets/munge.key"] == "munge.key"
    assert mounts["/etc/slurm/slurm.conf"] == "slurm-conf"


def z2jh(helm: Path, folder: Path) -> Path | str:
    """The chart of zero-to-jupyterhub: a folder that is given, or the newest of its own repository; else why not."""
    if given := os.environ.get("Z2JH_CHART"):
        return Path(given)
    argv = [
        str(helm),
        "pull",
        "jupyterhub",
        "--repo=https://hub.jupyter.org/helm-chart/",
        f"--untardir={folder}",
        "--untar",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return done.stderr.strip().splitlines()[-1] if done.returncode else folder / "jupyterhub"


@pytest.mark.row("C-12.3")
def test_zero_to_jupyterhub_takes_our_values(
    helm: Path, files: list[str], tmp_path: Path, not_checkable: Callable[[str, str], None]
) -> None:
    chart = z2jh(helm, tmp_path)
    if not isinstance(chart, Path):
        not_checkable("z2jh", f"the chart of zero-to-jupyterhub is not here: {chart}")
    values = data.charts() / "slurm-jupyterhub/zero-to-jupyterhub.yaml"

    # Its schema refuses what it does not know.
    argv = [str(helm), "template", "jupyterhub", str(chart), "--kube-version=1.36.0", f"--values={values}", *files]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    manifests: list[Any] = [each for each in yaml.safe_load_all(done.stdout) if each]
    secret = next(each for each in manifests if each["kind"] == "Secret" and "munge-key" in each.get("data", {}))
    assert base64.b64decode(secret["data"]["munge-key"], validate=True) == KEY
    assert secret["stringData"]["slurm-conf"] == CONF


@pytest.mark.row("C-12.3")
def test_round_trip_is_exact_for_any_key(hub_chart: Chart, tmp_path: Path) -> None:
    for length in (32, 57, 58, 128, 1024):
        key = random.Random(length).randbytes(length)  # noqa: S311  # no key of anything
        (tmp_path / "key.b64").write_bytes(base64.encodebytes(key))
        given = f"--set-file=singleuser.extraFiles.munge-key.binaryData={tmp_path}/key.b64"
        manifests = hub_chart.template("--set=slurmctld.host=head", given)
        assert base64.b64decode(find(manifests, "Secret", "-singleuser")["data"]["munge-key"]) == key


def test_values_for_zero_to_jupyterhub_are_of_this_release() -> None:
    ours = yaml.safe_load((data.charts() / "slurm-jupyterhub/Chart.yaml").read_text())
    theirs = yaml.safe_load((data.charts() / "slurm-jupyterhub/zero-to-jupyterhub.yaml").read_text())

    assert theirs["singleuser"]["image"]["tag"] == ours["appVersion"]
