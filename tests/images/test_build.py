"""Real builds: which release, under which name, and what is said when one cannot be had."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import venv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import docker
import pytest

from slurm_testbed import data, engine, images
from slurm_testbed.errors import BuildError, NoSourceError
from slurm_testbed.images.settings import registry_settings
from slurm_testbed.readiness import wait_until
from slurm_testbed.releases import Release, Releases, generate

DIGEST = "e1a5547edd212c38b5e3230a284133f777b32746551f094aaa81cc4af375e332"


@pytest.fixture(scope="session")
def client() -> docker.DockerClient:
    """The engine."""
    return engine.connect()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of images/ to spoil."""
    return Path(shutil.copytree(data.images(), tmp_path / "images"))


@pytest.fixture
def repository(own_repository: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The REPOSITORY of what this test builds."""
    monkeypatch.setenv("REPOSITORY", own_repository)
    return own_repository


BAKE = """
variable "REPOSITORY" { default = "" }
variable "VERSION" { default = "" }
group "all" { targets = ["probe"] }
target "probe" {
  args = { IMAGE = "%s" }
  tags = ["${REPOSITORY}/probe:${VERSION}"]
}
"""
PROBE = """
ARG IMAGE
FROM ${IMAGE}
RUN --mount=type=secret,id=pip-config --mount=type=secret,id=npm-config cd /run/secrets && wc -c * > /sizes
"""


def content(client: docker.DockerClient, image: str, path: str) -> str:
    """A file of an image that need not have a shell."""
    container = client.containers.create(image, ["none"])
    try:
        stream, _ = container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            member = archive.extractfile(archive.getnames()[0])
            assert member is not None, f"{path} is no file"
            return member.read().decode()
    finally:
        container.remove(v=True)


@pytest.mark.row("C-05.1", "C-05.2")
def test_built_image_has_the_asked_name_and_release(
    client: docker.DockerClient, repository: str, slurm_release: Release
) -> None:
    release = slurm_release
    (built,) = images.build(["slurm-tree"], [release])

    assert built.tags == (f"{repository}/slurm-tree:{release}", f"{repository}/slurm-tree:{release.minor}")
    env = content(client, built.name, "/usr/share/slurm-testbed/release.env")
    assert f"SLURM_RELEASE={release}\n" in env
    labels = client.images.get(built.name).labels
    assert labels["org.opencontainers.image.version"] == release.version


@pytest.mark.deep
@pytest.mark.row("U-01.1", "U-01.2")
def test_invoke_build_test_in_an_environment_of_ones_own(
    client: docker.DockerClient, repository: str, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    env = {**engine.environment(), "PATH": f"{programs}:{os.environ['PATH']}"}

    def run(*command: str) -> None:
        done = subprocess.run(
            command, cwd=data.images().parent, env=env, capture_output=True, text=True, check=False, timeout=1800
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"

    run("pip", "install", "--quiet", "--editable", ".")
    run("invoke", "build", "test", "--", "tests/slurm/test_jobs.py")

    default, _ = Releases.load().default()
    made = [images.image_name(name, default) for name in images.targets(group="default")]
    assert [name.partition("/")[2].partition(":")[0] for name in made] == [
        "slurm-client",
        "slurm-jupyter",
        "slurm-single-node",
        "viz-app",
    ]
    for name in made:
        assert client.images.get(name).attrs["Config"]["Labels"]["org.slurm-testbed.interface"] == "1"
    for name in made[:3]:
        said = client.containers.run(name, ["slurmrestd", "-V"], entrypoint=[], remove=True).decode().split()
        assert said[1:] == [default.version]


def test_wrong_digest_is_told_with_what_was_tried(folder: Path) -> None:
    path = folder / "releases.yaml"
    path.write_text(path.read_text().replace(DIGEST, "f" * 64))
    generate(folder)

    with pytest.raises(NoSourceError) as error:
        images.build(["slurm-tree"], [Releases.load().find("24.11")], folder=folder)

    text = str(error.value)
    assert text.startswith("no source of Slurm 24.11.5 could be had. Tried:")
    assert "slurm-24.11.5.tar.bz2: releases.yaml has no digest for it, so it was not tried" in text
    assert f"slurm-wlm in trixie: its SHA-256 is {DIGEST}, not {'f' * 64}" in text
    assert "--source" in error.value.hint


def test_release_that_the_table_lacks_is_told_with_those_it_has() -> None:
    known = " ".join(release.version for release in Releases.load().all)
    with pytest.raises(BuildError, match=rf"unknown release 99\.05\.0: sources\.tsv has {known}"):
        images.build(["slurm-tree"], [Release("99.05.0")])


def test_release_whose_sources_cannot_be_reached_is_a_named_gap(folder: Path) -> None:
    path = folder / "releases.yaml"
    path.write_text(path.read_text().replace("https://github.com/", "https://git.invalid/"))
    generate(folder)
    release = Releases.load().find("25.11")

    with pytest.raises(NoSourceError, match=f"no source of Slurm {re.escape(release.version)} could be had") as error:
        images.build(["slurm-tree"], [release], folder=folder)

    assert "releases.yaml has no digest for it" in str(error.value)
    assert "https://git.invalid/SchedMD/slurm.git: git exited with 128" in str(error.value)


def test_default_past_its_support_gives_way_when_a_newer_source_can_be_had() -> None:
    """Fails on the day when another default is due: then releases.yaml gets its digest, or loses its gap.

    A commit is none: the default is what every change is tested with, also where GitHub cannot be reached.
    """
    today = datetime.now(UTC).date()
    known = Releases.load()
    default = known.find(None)
    newer = [] if default.supported_on(today) else [r for r in known.all if r.number > default.number]

    due = [
        r.version
        for r in newer
        if r.supported_on(today) and any(s.sha256 for s in r.sources) and not images.why_no_source(r)
    ]

    assert due == [], f"support of the default, {default}, ended on {default.support_end}: {due} can be built now"


@pytest.mark.parametrize("kind", ["folder", "tarball"])
def test_given_source_without_configure_is_told(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "slurm-99.05.1"
    source.mkdir()
    (source / "META").write_text("  Name:\tslurm\n  Version:\t99.05.1\n")
    if kind == "tarball":
        source = Path(shutil.make_archive(str(source), "gztar", tmp_path, source.name))

    with pytest.raises(BuildError, match="the given source has no configure script"):
        images.build(["slurm-tree"], source=source)


# A shell that runs tests in the background has children ignore SIGINT.
BUILD = """
import signal, sys
from pathlib import Path
from slurm_testbed import images
signal.signal(signal.SIGINT, signal.default_int_handler)
images.build(["slurm-tree"], folder=Path(sys.argv[1]))
"""


def running(word: str) -> list[str]:
    """The command lines of this machine's processes with this word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            words = path.read_text().split("\0")
            if word in words:
                found.append(" ".join(words))
    return found


def working_in(folder: Path) -> list[str]:
    """The processes of this machine whose working directory this is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if path.readlink() == folder:
                found.append(path.parent.name)
    return found


@pytest.fixture
def screen() -> Iterator[int]:
    """A terminal to write to, on which nobody looks."""
    ours, theirs = pty.openpty()

    def look_away() -> None:
        with contextlib.suppress(OSError):  # the last writer has closed it
            while os.read(ours, 1 << 16):
                pass

    thread = threading.Thread(target=look_away)
    thread.start()
    yield theirs
    os.close(theirs)
    thread.join()
    os.close(ours)


@pytest.mark.parametrize("on_terminal", [False, True], ids=["lines", "terminal"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_leaves_nothing_running(
    client: docker.DockerClient, folder: Path, screen: int, number: signal.Signals, on_terminal: bool
) -> None:
    if client.info()["KernelVersion"] != os.uname().release:
        pytest.skip("not checkable here because the engine's processes are not seen from here")
    seconds = f"86400.{secrets.randbelow(10**9)}"
    (folder / "slurm/build/fetch-source").write_text(f"#!/bin/sh\nexec sleep {seconds}\n")
    argv = [sys.executable, "-c", BUILD, str(folder)]
    process = subprocess.Popen(argv, stderr=screen if on_terminal else subprocess.DEVNULL)
    wait_until(lambda: running(seconds), "the build to run", deadline=60)

    process.send_signal(number)
    process.wait(15)  # not killed: it has cleaned up by itself

    wait_until(lambda: not running(seconds), "the build's processes to end", deadline=10)
    wait_until(lambda: not working_in(folder), "docker to end, which ran in the folder", deadline=10)


def test_settings_of_pip_are_seen_by_a_step_and_are_in_no_layer(
    client: docker.DockerClient, slurm_release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = images.image_name("slurm-client", slurm_release)
    repository, token = f"slurm-testbed-test-{secrets.token_hex(4)}", secrets.token_hex(16)
    (tmp_path / "docker-bake.hcl").write_text(BAKE % image)
    (tmp_path / "Dockerfile").write_text(PROBE)
    monkeypatch.setenv("REPOSITORY", repository)
    monkeypatch.setenv("PIP_INDEX_URL", f"https://user:{token}@pip.example/simple")
    registry_settings.cache_clear()
    try:
        (built,) = images.build(["probe"], [slurm_release], folder=tmp_path, say=lambda _: None)
        seen = content(client, built.name, "/sizes").split()
        layers = b"".join(client.images.get(built.name).save())
        history = str(client.images.get(built.name).history())
    finally:
        registry_settings.cache_clear()
        for found in client.images.list(filters={"reference": f"{repository}/*"}):
            client.images.remove(found.tags[0])

    assert seen[1::2][:2] == ["npm-config", "pip-config"]
    assert int(seen[2]) > len(token), "the step saw no settings of pip"
    assert b"pip-config" in layers, "the layers are compressed, and cannot be searched like this"
    assert token.encode() not in layers
    assert token not in history
