"""Images: building, and the revision that is built."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_testbed.errors import UsageError
from slurm_testbed.images.builder import revision_of
from slurm_testbed.releases import Releases
from tests.unit.images.conftest import RELEASE, FakeRun, build


def test_build_without_arguments_makes_client_and_single_node_of_the_default(run: FakeRun, said: list[str]) -> None:
    default, why = Releases.load().default()

    built = build(run, said)

    assert [(image.name, image.size) for image in built] == [
        (f"slurm-testbed/slurm-client:{default}", 5),
        (f"slurm-testbed/slurm-single-node:{default}", 5),
    ]
    assert said[0] == why
    argv, env = run.calls[0]
    assert list(argv[1:3]) == ["buildx", "bake"]
    assert (env["VERSION"], env["BASE"]) == (default.version, "debian:trixie-slim")


def test_releases_are_built_one_after_another_with_a_warning_past_their_support(run: FakeRun, said: list[str]) -> None:
    build(run, said, ["slurm-client"], Releases.load().all)

    assert [env["VERSION"] for _, env in run.calls] == ["22.05.8", "24.11.5"]
    assert "warning: SchedMD's support for Slurm 22.05 ended on 2023-11-30" in said


def test_unknown_image_names_the_known(run: FakeRun, said: list[str]) -> None:
    known = "base, slurm-client, slurm-dev, slurm-single-node, slurm-tree"
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
