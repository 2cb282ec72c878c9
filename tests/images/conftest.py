"""The images under test: each as `docker run` has it, in this repository's own hands."""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import docker
import docker.errors
import pytest

from fixtures.made import MakeImages
from slurm_testbed import engine, vm
from slurm_testbed.container import ContainerSubstrate
from slurm_testbed.images import exists, image_name
from slurm_testbed.releases import Release, Releases
from slurm_testbed.slurm import Slurm

#: Images that a container can be started from.
RUNNABLE = (
    "slurm-client",
    "slurm-single-node",
    "slurm-dev",
    "slurm-jupyter",
    "slurm-jupyter-notebook",
    "jupyterhub",
    "observability",
    "slurm-viz",
    "app-sessions",
)
#: Images of applications, in which no Slurm is.
APPS = ("viz-app",)
#: Those that `invoke build` makes by itself; tests build the others.
BUILT_BEFORE = ("slurm-client", "slurm-single-node", "slurm-jupyter", "viz-app")
#: Seconds that a command in a new container may take.
RUN_SECONDS = 180


@dataclass(frozen=True)
class Image:
    """An image of one release, and what the docker command makes of it.

    Attributes:
        target: its name in the bake file.
        release: the release in it.
        client: the engine.
        full_name: a name of another form than ours.
    """

    target: str
    release: Release
    client: docker.DockerClient = field(repr=False)
    full_name: str = ""

    @property
    def name(self) -> str:
        """The full name, with repository and version."""
        return self.full_name or image_name(self.target, self.release)

    @property
    def labels(self) -> dict[str, str]:
        """The image's labels."""
        return dict(self.client.images.get(self.name).labels)

    @property
    def slurm(self) -> str:
        """`compiled` from source, or `packaged` by the distribution: what its label says."""
        return "packaged" if self.labels["org.slurm-testbed.source"].startswith("packages") else "compiled"

    def run(
        self, *command: str, options: Sequence[str] = (), stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What `docker run --rm` says, typed as a person types it; the container is gone afterwards."""
        with self._named() as (name, argv):
            interactive = ["--interactive"] if stdin is not None else []
            done = subprocess.run(
                [*argv, "--rm", *interactive, *options, self.name, *command],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                check=False,
                timeout=RUN_SECONDS * vm.place_of(self.client).speed,
                env=engine.environment(),
            )
            assert not self.client.containers.list(all=True, ignore_removed=True, filters={"name": name}), (
                "it outlived --rm"
            )
        return done

    @contextlib.contextmanager
    def started(
        self,
        *command: str,
        options: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        ready: bool = True,
    ) -> Iterator[Slurm]:
        """What `docker run --detach` starts; removed in the end, with its volumes.

        Args:
            command: role or command.
            options: of docker run.
            files: text by absolute path, put there before the first process runs: `docker cp` into a created one.
            ready: wait until `slurm-ready` says so.
        """
        with self._named("create" if files else "run") as (name, argv):
            speed = vm.place_of(self.client).speed
            seconds = math.ceil(RUN_SECONDS * speed)
            own = [f"--hostname={name}", f"--env=SLURM_TESTBED_DEADLINE={seconds}", *([] if files else ["--detach"])]
            if speed > 1:  # a check takes seconds there, and comes every second while the cluster starts
                own += [f"--health-start-interval={speed:.0f}s", f"--health-interval={10 * speed:.0f}s"]
                own += [f"--health-timeout={10 * speed:.0f}s"]
            full = [*argv, *own, *options, self.name, *command]
            if "--network=host" in options:
                full.remove(f"--hostname={name}")
            done = subprocess.run(full, capture_output=True, text=True, check=False, env=engine.environment())
            assert done.returncode == 0, done.stderr
            substrate = ContainerSubstrate(self.client.containers.get(name))
            slurm = Slurm(substrate)
            if files:
                substrate.put(name, {path: text.encode() for path, text in files.items()})
                substrate.container.start()
            if ready:
                wait_ready(slurm)
            yield slurm

    @contextlib.contextmanager
    def _named(self, subcommand: str = "run") -> Iterator[tuple[str, list[str]]]:
        name = f"slurm-image-{secrets.token_hex(4)}"
        program = shutil.which("docker")
        assert program, "these tests type docker run: install docker-cli"
        labels = [f"--label={key}={value}" for key, value in our_labels(name).items()]
        try:
            yield name, [program, subcommand, f"--name={name}", *labels]
        finally:
            with contextlib.suppress(docker.errors.APIError):
                self.client.containers.get(name).remove(force=True, v=True)


def our_labels(name: str) -> dict[str, str]:
    """Labels by which the sweep of a later run finds what this one leaves."""
    return {engine.LABEL_CLUSTER: name, engine.LABEL_OWNER: engine.owner()}


def wait_ready(slurm: Slurm) -> None:
    """Wait until the container's daemons answer."""
    seconds = math.ceil(RUN_SECONDS * slurm.substrate.facts().speed)
    done = slurm.run(["slurm-ready", "--wait", str(seconds)], check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{slurm.substrate.logs(slurm.controller)}"


@pytest.fixture(scope="session")
def docker_client() -> docker.DockerClient:
    """The engine, swept of what dead runs left."""
    client = engine.connect()
    engine.sweep(client)
    return client


@pytest.fixture(scope="session")
def image_of(docker_client: docker.DockerClient, make_images: MakeImages) -> Callable[[str, Release], Image]:
    """An image by target and release; those that few build are built, all at once, which takes no longer than one."""

    def find(target: str, release: Release) -> Image:
        image = Image(target, release, docker_client)
        if why := gap(docker_client, target, release):
            pytest.skip(f"not checkable here because {why}")
        if target not in BUILT_BEFORE:
            rare = [name for name in RUNNABLE if name not in BUILT_BEFORE and not gap(docker_client, name, release)]
            make_images(release, *(rare if target in RUNNABLE else [target]))
        assert exists(docker_client, image.name), f"there is no {image.name}: invoke build --image {target}"
        return image

    return find


def gap(client: docker.DockerClient, target: str, release: Release) -> str:
    """Why there is no such image of a release that stands on packages; empty where there is."""
    packages = release.packages
    if packages is None or target not in packages.no_images:
        return ""
    compiled = Image("slurm-client", release, client).slurm == "compiled"
    return "" if compiled else f"there is no {target} of Slurm {release} on {packages}: {packages.no_images[target]}"


@pytest.fixture
def target() -> str:
    """The image's target, where a test does not name others by a parameter."""
    return "slurm-single-node"


@pytest.fixture
def image(
    request: pytest.FixtureRequest,
    target: str,
    slurm_release: Release,
    image_of: Callable[[str, Release], Image],
) -> Image:
    """The image under test."""
    request.node.user_properties += [("slurm_release", slurm_release.version), ("slurm_on", "single")]
    return image_of(target, slurm_release)


@pytest.fixture
def client_image(
    request: pytest.FixtureRequest, slurm_release: Release, image_of: Callable[[str, Release], Image]
) -> Image:
    """slurm-client of the release."""
    request.node.user_properties += [("slurm_release", slurm_release.version), ("slurm_on", "single")]
    return image_of("slurm-client", slurm_release)


@pytest.fixture(scope="session")
def _idle() -> Iterator[Callable[[Image], Slurm]]:
    with contextlib.ExitStack() as stack:
        running: dict[str, Slurm] = {}

        def get(image: Image) -> Slurm:
            if image.name not in running:
                options = ["--entrypoint=sleep", "--init"]
                running[image.name] = stack.enter_context(image.started("infinity", options=options, ready=False))
            return running[image.name]

        yield get


@pytest.fixture
def inside(image: Image, _idle: Callable[[Image], Slurm]) -> Slurm:
    """A container of the image in which nothing of Slurm runs: to look at its files."""
    return _idle(image)


# --- layers ----------------------------------------------------------------------------------------------

#: Larger files are no keys, and are not kept to be searched.
KEPT_BYTES = 1 << 20


@dataclass(frozen=True)
class LayerFile:
    """A regular file in a layer, also one that a later layer deletes.

    Attributes:
        image: names of the images that have the layer.
        path: without the leading slash.
        size: bytes.
        content: of a file up to `KEPT_BYTES`, else empty.
    """

    image: str
    path: str
    size: int
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.path} ({self.size} bytes) in a layer of {self.image}"


def layer_files(client: docker.DockerClient, names: Sequence[str]) -> list[LayerFile]:
    """Every file in every layer of images, by `docker save`; a layer that they share is read once."""
    program = shutil.which("docker")
    assert program
    blobs: dict[str, list[tuple[str, int, bytes]]] = {}
    manifest: list[dict[str, list[str]]] = []
    argv = [program, "save", *names]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=engine.environment()) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None and member.name == "manifest.json":
                    manifest = json.load(file)
                elif file is not None:
                    blobs[member.name] = list(_files(file))
        assert process.wait() == 0, "docker save failed"
    found = []
    for layer in {layer for image in manifest for layer in image["Layers"]}:
        users = ", ".join(tag for image in manifest if layer in image["Layers"] for tag in image["RepoTags"] or ())
        found += [LayerFile(users, *file) for file in blobs[layer]]
    assert found, f"docker save gave no file of {', '.join(names)}"
    return found


def _files(blob: IO[bytes]) -> Iterator[tuple[str, int, bytes]]:
    """The regular files of a layer; nothing for a blob that is no layer, such as the image's configuration."""
    try:
        with tarfile.open(fileobj=blob, mode="r|*") as layer:
            for member in layer:
                if member.isfile():
                    kept = member.size <= KEPT_BYTES
                    content = cast(IO[bytes], layer.extractfile(member)).read() if kept else b""
                    yield re.sub(r"^(\./)+", "", member.name), member.size, content
    except tarfile.ReadError:
        return


@pytest.fixture(scope="session")
def saved_files(
    docker_client: docker.DockerClient,
    pytestconfig: pytest.Config,
    image_of: Callable[[str, Release], Image],
) -> list[LayerFile]:
    """The files in all layers of all images of the releases that are asked for."""
    known = Releases.load()
    asked = [name for name in pytestconfig.getoption("slurm_release").split(",") if name]
    releases = [known.find(name) for name in asked or [None]]
    names = [
        image_of(target, release).name
        for release in releases
        for target in (*RUNNABLE, *APPS)
        if not gap(docker_client, target, release)
    ]
    return layer_files(docker_client, names)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A munge key as a person makes one: dd if=/dev/urandom of=munge.key bs=128 count=1."""
    path = tmp_path / "munge.key"
    path.write_bytes(secrets.token_bytes(128))
    return path
