"""What SlurmCluster tells docker compose; no engine is asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from slurm_testbed import SlurmCluster, data
from slurm_testbed.compose.cluster import further_node, override
from slurm_testbed.errors import UsageError


def test_repository_of_the_caller_reaches_compose() -> None:
    assert SlurmCluster("24.11", repository="me").project.settings["REPOSITORY"] == "me"


def test_repository_is_left_to_the_environment_where_none_is_given() -> None:
    assert "REPOSITORY" not in SlurmCluster("24.11").project.settings


def test_nfs_export_brings_its_file_and_its_parts() -> None:
    project = SlurmCluster("24.11", shared_nfs="server:/export/slurm").project

    assert "nfs.yaml" in [path.name for path in project.files]
    assert (project.settings["NFS_SERVER"], project.settings["NFS_PATH"]) == ("server", "/export/slurm")


def config(files: list[Path], *arguments: str) -> str:
    """What `docker compose config` prints, which takes the files."""
    settings = {"VERSION": "24.11.5", "NFS_SERVER": "server", "NFS_PATH": "/export"}
    done = subprocess.run(
        ["docker", "compose", *(f"--file={path}" for path in files), "config", *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


STACKS = ["cluster", "hub", "observability", "viz"]


@pytest.mark.parametrize("stack", STACKS)
def test_stack_is_a_file_of_its_name(stack: str) -> None:
    assert SlurmCluster("24.11", stack=stack).project.files[0].name == f"{stack}.yaml"


@pytest.mark.parametrize("further", ["cgroups.yaml", "nfs.yaml"])
@pytest.mark.parametrize("stack", STACKS)
def test_compose_takes_the_files_that_change_every_stacks_nodes(stack: str, further: str) -> None:
    config([data.compose() / name for name in (f"{stack}.yaml", further)], "--quiet")


def test_values_reach_the_hosts_as_they_are_given(tmp_path: Path) -> None:
    secret = "pa$$w$HOME${X}"
    (tmp_path / "nodes.yaml").write_text(yaml.safe_dump(override(3, ["/srv/$x"], {"SECRET": secret}, cgroups=False)))

    printed = config([data.compose() / "cluster.yaml", tmp_path / "nodes.yaml"], "--format=json")

    for name in ("slurmctld", "n1", "n3"):
        service = json.loads(printed)["services"][name]
        # It prints them as a compose file has them.
        assert service["environment"]["SECRET"].replace("$$", "$") == secret
        assert "/srv/$x" in [volume["source"].replace("$$", "$") for volume in service["volumes"]]


def test_node_of_the_readme_is_one_that_compose_takes(tmp_path: Path) -> None:
    folder = data.compose()
    (snippet,) = re.findall(r"```yaml\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(snippet)

    assert "n3" in config([folder / "cluster.yaml", tmp_path / "mine.yaml"], "--services").split()


def test_further_node_has_what_both_its_stack_and_cgroups_ask_for() -> None:
    node = further_node([], {}, cgroups=True, stack="viz")

    assert node["image"].endswith("/slurm-viz:${VERSION}")
    assert (node["devices"], node["security_opt"]) == (["/dev/fuse"], ["apparmor=unconfined"])
    assert {"SYS_ADMIN", "SYS_PTRACE"} <= set(node["cap_add"])


def test_unknown_stack_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="there is no stack nonsense") as caught:
        SlurmCluster("24.11", stack="nonsense")

    assert "cluster, hub" in str(caught.value)


def test_configuration_of_a_hub_is_refused_where_there_is_none() -> None:
    with pytest.raises(UsageError, match="the stack cluster has no hub"):
        SlurmCluster("24.11", hub_conf={"30-spawner.py": ""})
