"""Images: the bake graph."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slurm_testbed import data, engine, images
from slurm_testbed.engine import Machine
from slurm_testbed.errors import BuildError, EngineError
from slurm_testbed.images import builder
from slurm_testbed.releases import Release, Releases
from tests.unit.images.conftest import FakeImage, FakeRun, build


def bake(*arguments: str, **env: str) -> dict[str, Any]:
    """What bake would build, asked without anything of ours but its files."""
    unset = {"VERSION", "BASE", "REPOSITORY", "REVISION", "SLURM", "SUITE", "APPS_BASE", "APPS_SUITE", "VIZ_APPS"}
    done = subprocess.run(
        ["docker", "buildx", "bake", "--print", *arguments],
        cwd=data.images(),
        env={**{name: value for name, value in os.environ.items() if name not in unset}, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    graph: dict[str, Any] = json.loads(done.stdout)["target"]
    return graph


#: What images stand on, and no image itself: it is in the build's cache alone.
PARTS = {"python", "python-build", "apps-base", "apps-python"}
#: Images in which no Slurm is: their tag is their Debian.
WITHOUT_SLURM = {"viz-app", "viz-app-xfce"}


def bake_images(**env: str) -> dict[str, Any]:
    """What bake would build, without the parts."""
    graph = bake("all", **env)
    assert not any(graph.pop(part).get("tags") for part in PARTS)
    return graph


@pytest.mark.parametrize("release", [release.version for release in Releases.load().all])
def test_bake_tags_every_image_as_image_name_says(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPOSITORY", raising=False)

    tagged = {name: target["tags"] for name, target in bake_images(VERSION=release).items()}

    slurm = {"base", "slurm-source", "slurm-tree", "slurm-client", "slurm-single-node", "slurm-dev"}
    jupyter = {"slurm-jupyter", "slurm-jupyter-notebook", "jupyterhub"}
    others = {"observability", "postgresql", "prometheus", "slurm-viz", "app-sessions"}
    assert set(tagged) == slurm | jupyter | others | WITHOUT_SLURM
    for name, tags in tagged.items():
        minor = [] if name in images.WITHOUT_RELEASE else [images.image_name(name, release.rpartition(".")[0])]
        assert tags == [images.image_name(name, release), *minor], name


@pytest.mark.row("C-05.1", "C-05.2")
def test_repository_and_version_are_parameters_of_bake() -> None:
    target = bake("slurm-client", REPOSITORY="hokiegeek2", VERSION="22.05.8")["slurm-client"]

    assert target["tags"] == ["hokiegeek2/slurm-client:22.05.8", "hokiegeek2/slurm-client:22.05"]
    assert target["args"] == {"BASE": "debian:trixie-slim", "SLURM": "compiled", "VERSION": "22.05.8"}


def test_packages_stand_on_a_base_of_their_suite_and_are_labelled_so() -> None:
    known = [release for release in Releases.load().all if release.packages]
    assert known, "no release has packages"

    for release in known:
        suite = release.packages.where if release.packages else ""
        graph = bake("all", VERSION=release.version, SLURM="packaged")

        assert graph["base"]["tags"] == [f"slurm-testbed/base:{suite}"]
        client = graph["slurm-client"]
        assert client["args"] == {"BASE": f"debian:{suite}-slim", "SLURM": "packaged", "VERSION": release.version}
        assert client["labels"]["org.slurm-testbed.source"] == f"packages of Debian {suite}"


def test_built_base_has_the_name_of_the_suite_that_it_stands_on(
    run: FakeRun, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = next(release for release in Releases.load().all if release.packages)
    assert release.packages
    suite = release.packages.where
    run.client.known |= {f"debian:{suite}-slim": FakeImage(), f"slurm-testbed/base:{suite}": FakeImage(b"12345")}
    monkeypatch.setattr(builder._Bake, "why_no_source", lambda *_: "no source is here")

    (built,) = build(run, said, ["base"], [release])

    assert built.name == f"slurm-testbed/base:{suite}"


@pytest.mark.parametrize("release", Releases.load().all, ids=str)
def test_images_without_a_slurm_are_the_same_with_every_release(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPOSITORY", raising=False)
    suite = release.packages.where if release.packages else "trixie"

    graph = bake("viz-app", VERSION=release.version, SLURM="packaged", SUITE=suite)

    assert graph["viz-app"]["tags"] == [images.image_name("viz-app", release)] == [images.image_name("viz-app")]
    assert graph["apps-base"]["args"]["BASE"] == "debian:trixie-slim"


def test_image_for_apptainer_is_a_file_in_the_folder_that_is_asked_for() -> None:
    graph = bake("viz-app-sif", "viz-app-xfce-sif", SIF_FOLDER="/somewhere")

    for name in WITHOUT_SLURM:
        target = graph[f"{name}-sif"]
        assert target["output"] == ["type=local,dest=/somewhere"]
        assert target["args"].get("SIF", "viz-app") == name
        assert not target.get("tags")


def test_bake_without_arguments_builds_what_invoke_build_does() -> None:
    graph = bake()

    names = ["slurm-client", "slurm-jupyter", "slurm-single-node", "viz-app"]
    assert list(images.targets(group="default")) == names
    # What those stand on is in the graph too.
    assert sorted(graph) == sorted([*names, "base", "slurm-tree", *PARTS])
    assert graph["slurm-client"]["args"]["VERSION"] == Releases.load().find().version


@pytest.mark.parametrize("release", Releases.load().all, ids=str)
def test_labels_say_what_an_image_is(release: Release) -> None:
    graph = bake_images(VERSION=release.version, BASE="debian:sid-slim", APPS_BASE="debian:sid-slim", REVISION="abc")

    for name, target in graph.items():
        labels = target["labels"]
        ours = {
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.revision": "abc",
            "org.opencontainers.image.base.name": "debian:sid-slim",
            "org.slurm-testbed.interface": "1",
        }
        of_release = {
            "org.opencontainers.image.version": release.version,
            "org.slurm-testbed.release": release.version,
            "org.slurm-testbed.support-end": str(release.support_end),
            "org.slurm-testbed.source": "releases.yaml",
        }
        expected = ours if name in images.WITHOUT_RELEASE else ours | of_release
        assert labels | expected == labels, name
        for key in ("description", "source", "licenses"):
            assert labels[f"org.opencontainers.image.{key}"], f"{name} has no {key}"
        assert name in images.WITHOUT_RELEASE or "GPL-2.0" in labels["org.opencontainers.image.licenses"], name


def test_release_that_nobody_described_has_no_support_end() -> None:
    labels = bake("slurm-client", VERSION="99.05.0")["slurm-client"]["labels"]

    assert labels["org.slurm-testbed.support-end"] == "unknown"


def test_wrong_bake_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "docker-bake.hcl").write_text('target "x" {')

    with pytest.raises(BuildError, match=r"the bake file cannot be read: .*docker-bake\.hcl"):
        images.targets(folder=tmp_path)


def test_missing_docker_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "THIS", Machine(environ={"PATH": str(tmp_path)}))

    with pytest.raises(EngineError, match="the command docker is not here") as error:
        images.targets()

    assert "docker-buildx" in error.value.hint


def test_docker_without_buildx_is_named(program: Callable[[str, str], Path]) -> None:
    program("docker", """echo "docker: 'buildx' is not a docker command." >&2; exit 1""")

    with pytest.raises(EngineError, match="docker has no buildx"):
        images.targets()
