"""Images: building, and the revision that is built."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest

from slurm_testbed import images
from slurm_testbed.errors import BuildError, NoSourceError, UsageError
from slurm_testbed.images.builder import revision_of
from slurm_testbed.releases import Release, Releases, Source
from tests.unit.images.conftest import RELEASE, FakeImage, FakeRun, build
from tests.unit.images.test_explanation import NO_SOURCE, plain


def test_build_without_arguments_makes_four_images_of_the_default(run: FakeRun, said: list[str]) -> None:
    default, why = Releases.load().default()

    built = build(run, said)

    assert [(image.name, image.size) for image in built] == [
        (f"slurm-testbed/slurm-client:{default}", 5),
        (f"slurm-testbed/slurm-jupyter:{default}", 5),
        (f"slurm-testbed/slurm-single-node:{default}", 5),
        ("slurm-testbed/viz-app:trixie", 5),
    ]
    assert said[0] == why
    argv, env = run.calls[0]
    assert list(argv[1:3]) == ["buildx", "bake"]
    assert (env["VERSION"], env["BASE"]) == (default.version, "debian:trixie-slim")


def test_releases_are_built_one_after_another_with_a_warning_past_their_support(run: FakeRun, said: list[str]) -> None:
    known = Releases.load()
    build(run, said, ["slurm-client"], [known.find("22.05"), known.find("24.11")])

    assert [env["VERSION"] for _, env in run.calls] == ["22.05.8", "24.11.5"]
    assert "warning: SchedMD's support for Slurm 22.05 ended on 2023-11-30" in said


@dataclass
class WithoutSource:
    """A build that finds no source, of which only the packages can be built."""

    run: FakeRun

    def __call__(self, argv: Sequence[str], env: Mapping[str, str], folder: Path) -> tuple[int, str]:
        """Run bake."""
        code, _ = self.run(argv, env, folder)
        return (code, "") if env["SLURM"] == "packaged" else (1, plain(NO_SOURCE))


PACKAGES = Source("packages", "sid", "slurmctld,slurmd", lacks=frozenset({"pmix"}))
PACKAGED = Release("24.11.5", date(2099, 1, 1), sources=(Source("schedmd", "https://x/y.tar.bz2"), PACKAGES))


def test_packages_are_taken_where_no_source_can_be_had_and_one_line_says_why(run: FakeRun, said: list[str]) -> None:
    run.client.known["debian:sid-slim"] = FakeImage()

    images.build(["slurm-client"], [PACKAGED], say=said.append, run=WithoutSource(run))

    assert [(argv[-1], env["SLURM"], env["BASE"]) for argv, env in run.calls] == [
        ("source", "compiled", "debian:trixie-slim"),
        ("slurm-client", "packaged", "debian:sid-slim"),
    ]
    (line,) = [text for text in said if text.startswith("source: ")]
    assert line.startswith("source: Debian's packages in sid instead of source code, which could not be had (")
    assert "slurm-24.11.5.tar.bz2: curl exited with 6; Debian's source package slurm-wlm in trixie: its SHA" in line


def test_packages_are_left_where_a_source_can_be_had(run: FakeRun, said: list[str]) -> None:
    build(run, said, ["slurm-client"], [PACKAGED])

    assert [(argv[-1], env["SLURM"]) for argv, env in run.calls] == [
        ("source", "compiled"),
        ("slurm-client", "compiled"),
    ]
    assert not [text for text in said if "packages" in text]


NO_JUPYTER = replace(PACKAGED, sources=(replace(PACKAGES, no_images={"slurm-jupyter": "its Python is old"}),))


def test_image_that_a_suite_cannot_carry_is_a_named_gap(run: FakeRun, said: list[str]) -> None:
    run.client.known["debian:sid-slim"] = FakeImage()

    built = images.build(["slurm-jupyter", "slurm-client"], [NO_JUPYTER], say=said.append, run=WithoutSource(run))

    assert [image.name for image in built] == ["slurm-testbed/slurm-client:24.11.5"]
    assert run.calls[-1][0][-1] == "slurm-client"
    assert "gap: no slurm-jupyter of Slurm 24.11.5 on Debian's packages in sid: its Python is old" in said


def test_release_of_which_no_image_can_be_carried_is_skipped_with_the_reason(run: FakeRun, said: list[str]) -> None:
    fails = WithoutSource(run)
    with pytest.raises(NoSourceError, match="no slurm-jupyter of Slurm 24.11.5 .*: its Python is old"):
        images.build(["slurm-jupyter"], [NO_JUPYTER], say=said.append, run=fails)

    assert images.build(["slurm-jupyter"], [NO_JUPYTER], skip_unavailable=True, say=said.append, run=fails) == []


def test_base_of_ones_own_is_refused_for_packages(run: FakeRun, said: list[str]) -> None:
    with pytest.raises(UsageError, match="packages of Debian sid do not go onto the base mine:1") as error:
        images.build(["slurm-client"], [PACKAGED], base="mine:1", say=said.append, run=WithoutSource(run))

    assert "leave out --base" in error.value.hint


def test_unknown_image_names_the_known(run: FakeRun, said: list[str]) -> None:
    known = "app-sessions, base, jupyterhub, observability, postgresql, prometheus, slurm-client, slurm-dev, .*"
    with pytest.raises(UsageError, match=f"no image slurm-cleint: there are {known}"):
        build(run, said, ["slurm-cleint"])

    assert run.calls == []


def test_given_source_is_passed_and_names_the_version(run: FakeRun, said: list[str], checkout: Path) -> None:
    built = build(run, said, ["slurm-client"], source=checkout)

    argv, env = run.calls[0]
    assert f"*.contexts.given-source={checkout}" in argv
    assert (env["VERSION"], env["SOURCE"]) == ("25.05.1", "slurm-main")
    assert built[0].tags == ("slurm-testbed/slurm-client:25.05.1", "slurm-testbed/slurm-client:25.05")
    assert "source: slurm-main, which is Slurm 25.05.1; the images are tagged by that version" in said


def test_given_source_of_another_release_than_asked_is_refused(run: FakeRun, said: list[str], checkout: Path) -> None:
    with pytest.raises(UsageError, match=r"slurm-main is Slurm 25\.05\.1, and release 24\.11\.5 is asked for"):
        build(run, said, releases=[RELEASE], source=checkout)


def test_build_in_which_buildkit_loses_track_is_tried_once_more(run: FakeRun, said: list[str]) -> None:
    lost = (1, "ERROR: failed to solve: failed to get edge: inconsistent graph state")
    run.ends = {RELEASE.version: lost}

    with pytest.raises(BuildError, match="inconsistent graph state"):
        build(run, said, ["slurm-client"], [RELEASE])

    assert len(run.calls) == 2
    assert run.calls[0] == run.calls[1]
    assert any(text.startswith("BuildKit lost track of a step") for text in said)


def test_build_that_fails_otherwise_is_not_tried_again(run: FakeRun, said: list[str]) -> None:
    run.ends = {RELEASE.version: (1, "ERROR: failed to solve: no space left on device")}

    with pytest.raises(BuildError):
        build(run, said, ["slurm-client"], [RELEASE])

    assert len(run.calls) == 1


@pytest.mark.parametrize(
    ("variable", "size", "passed"), [("CURL_CA_BUNDLE", 9, True), ("SSL_CERT_FILE", 500_001, False)]
)
def test_ca_bundle_of_the_host_is_a_build_secret(
    run: FakeRun,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
    size: int,
    passed: bool,
) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(bytes(size))
    for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(bundle))

    build(run, said, ["slurm-client"], [RELEASE])

    assert (f"*.secrets=id=ca-bundle,src={bundle}" in run.calls[0][0]) is passed
    assert any("larger than a build secret may be" in text for text in said) is not passed


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., str]:
    """Runs git in a repository of its own with one commit."""

    def git(*arguments: str) -> str:
        argv = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "images").mkdir()
    (tmp_path / "images/file").write_text("1")
    (tmp_path / "readme").touch()
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    return git


def test_revision_is_the_last_commit_of_the_images(repository: Callable[..., str], tmp_path: Path) -> None:
    first = repository("rev-parse", "HEAD")
    (tmp_path / "readme").write_text("other")
    repository("commit", "--quiet", "--all", "--message=second")

    assert revision_of(tmp_path / "images") == first


def test_revision_says_that_images_were_changed_since(repository: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "images/file").write_text("2")

    assert revision_of(tmp_path / "images") == repository("rev-parse", "HEAD") + "-dirty"


def test_revision_of_a_wheel_is_its_version(tmp_path: Path) -> None:
    assert revision_of(tmp_path) == importlib.metadata.version("slurm-testbed")


def test_images_derived_from_ours_need_no_source_of_slurm(run: FakeRun, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "docker-bake.hcl").write_text(
        'variable "VERSION" { default = "" }\n'
        'group "all" { targets = ["mine"] }\n'
        'target "mine" { tags = ["slurm-testbed/slurm-client:${VERSION}"] }\n'
    )
    packaged = next(release for release in Releases.load().all if release.packages)

    build(run, said, ["mine"], [packaged], folder=tmp_path)

    # One call: nobody asked whether its source can be had, nor was it taken from packages.
    ((argv, env),) = run.calls
    assert argv[-1] == "mine"
    assert env["SLURM"] == "compiled"
