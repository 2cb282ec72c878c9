"""The container engine: swept of what the dead left."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
import tenacity

from slurm_testbed import engine
from slurm_testbed.engine.labels import is_dead


@pytest.fixture
def image(client: docker.DockerClient) -> Iterator[str]:
    """An image of one empty file; nothing of it is ever run."""
    tag = f"slurm-testbed-unit-{uuid.uuid4().hex[:12]}:empty"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    client.api.import_image_from_data(buffer.getvalue(), repository=tag.split(":")[0], tag="empty")
    yield tag
    client.images.remove(tag)


@pytest.fixture
def dead_owner() -> str:
    """The label of a process of this host that has ended."""
    code = "from slurm_testbed import engine; print(engine.owner())"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    ).stdout.strip()


@dataclass
class Clusters:
    """Makes a container, a network and a volume with one owner's labels."""

    client: docker.DockerClient
    image: str
    made: dict[str, str] = field(default_factory=dict)

    def make(self, owner: str) -> str:
        """Make the three and return their common name."""
        name = f"slurm-testbed-unit-{uuid.uuid4().hex[:12]}"
        labels = {engine.LABEL_CLUSTER: name, engine.LABEL_OWNER: owner}
        container = self.client.containers.create(self.image, ["/empty"], name=name, labels=labels)
        self.made[name] = str(container.id)
        self.client.networks.create(name, labels=labels)
        self.client.volumes.create(name, labels=labels)
        return name

    def left(self, name: str) -> list[str]:
        """Which of the three are there."""
        label = {"label": f"{engine.LABEL_CLUSTER}={name}"}
        return [
            *("container" for _ in self.client.containers.list(all=True, sparse=True, filters=dict(label))),
            *("network" for _ in self.client.networks.list(filters=dict(label))),
            *("volume" for _ in self.client.volumes.list(filters=dict(label))),
        ]

    def left_at_last(self, name: str) -> list[str]:
        """Which of the three are there after at most 10 s."""
        return tenacity.Retrying(
            stop=tenacity.stop_after_delay(10),
            wait=tenacity.wait_fixed(0.1),
            retry=tenacity.retry_if_result(bool),
            retry_error_callback=lambda _: self.left(name),
        )(self.left, name)

    def remove(self) -> None:
        """Remove what the sweep left."""
        for name, container in self.made.items():
            for found in self.client.containers.list(all=True, sparse=True, filters={"id": container}):
                found.remove(force=True)
            for network in self.client.networks.list(names=[name]):
                network.remove()
            for volume in self.client.volumes.list(filters={"name": name}):
                volume.remove()


@pytest.fixture
def clusters(client: docker.DockerClient, image: str) -> Iterator[Clusters]:
    """Clusters that are gone after the test."""
    made = Clusters(client, image)
    yield made
    made.remove()


@pytest.mark.parametrize("living", ["this process", "another host", "invoke up"])
def test_sweep_removes_what_the_dead_left_and_nothing_of_the_living(
    client: docker.DockerClient, clusters: Clusters, dead_owner: str, living: str
) -> None:
    owner = {
        "this process": engine.owner(),
        "another host": f"not-this-host:{dead_owner.partition(':')[2]}",
        "invoke up": engine.UP_OWNER,
    }[living]
    dead, alive = clusters.make(dead_owner), clusters.make(owner)

    engine.sweep(client)

    # Another suite's sweep may have been quicker, and still be at it.
    left = clusters.left_at_last(dead)
    assert left == [], f"left of the dead: {left}"
    left = clusters.left(alive)
    assert left == ["container", "network", "volume"], f"left of the living: {left}"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders of clusters are, without those of other suites."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("folders")
def test_sweep_of_everything_takes_all_owners() -> None:
    """With a client of its own, because the real engine also carries the clusters of other suites."""
    removed: list[str] = []
    fake = FakeClient(removed, {"a": engine.owner(), "b": engine.UP_OWNER, "c": "not-this-host:1:1@1"})

    said = engine.sweep(fake, everything=True)  # type: ignore[arg-type]

    assert said == ["container a", "container b", "container c"], f"it said {said}"
    assert removed == ["a", "b", "c"], f"it removed {removed}"


@pytest.mark.usefixtures("folders")
def test_sweep_knows_an_owner_by_what_stands_before_a_slash(dead_owner: str) -> None:
    removed: list[str] = []
    fake = FakeClient(removed, {"a": f"{dead_owner}/up-1", "b": f"{engine.owner()}/up-1"})

    engine.sweep(fake)  # type: ignore[arg-type]

    assert removed == ["a"], f"it removed {removed}"


def test_sweep_removes_the_folders_of_the_dead(folders: Path, dead_owner: str) -> None:
    dead, alive = engine.make_folder("slurm-a", dead_owner), engine.make_folder("slurm-b", engine.owner())
    (dead / "ssh-alice").mkdir()
    (dead / "ssh-alice" / "id_ed25519").write_text("a key")
    foreign = folders / "slurm-c-compose"
    foreign.mkdir()

    said = engine.sweep(FakeClient([], {}))  # type: ignore[arg-type]

    assert said == [f"folder {dead}"], f"it said {said}"
    assert sorted(folders.iterdir()) == [alive, foreign], "what is left"


class FakeClient:
    """As much of a docker client as a sweep of containers needs."""

    def __init__(self, removed: list[str], owners: dict[str, str]) -> None:
        self.removed, self.owners = removed, owners
        self.containers = self
        self.networks = self.volumes = type("Nothing", (), {"list": staticmethod(lambda **_: [])})

    def list(self, **_: object) -> list[object]:
        """One container for each owner."""
        return [self._container(name, owner) for name, owner in self.owners.items()]

    def _container(self, name: str, owner: str) -> object:
        attrs = {"Names": [f"/{name}"], "Labels": {engine.LABEL_OWNER: owner}}
        return type("C", (), {"attrs": attrs, "id": name, "remove": lambda _, **__: self.removed.append(name)})()


def test_owner_that_died_is_dead_and_this_process_is_not(dead_owner: str) -> None:
    assert is_dead(dead_owner), f"{dead_owner} counts as alive"
    assert not is_dead(engine.owner()), f"{engine.owner()} counts as dead"


def test_owner_with_a_number_given_again_is_dead() -> None:
    host, pid, rest = engine.owner().split(":", 2)

    assert is_dead(f"{host}:{pid}:1@{rest.rpartition('@')[2]}"), "the start time does not count"


@pytest.mark.parametrize("label", ["", "up", "nonsense:x", "a:b:c"])
def test_owner_that_cannot_be_judged_is_not_dead(label: str) -> None:
    assert not is_dead(label), f"{label!r} counts as dead"
