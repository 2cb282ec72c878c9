"""Start a container of ours, and remove it again."""

from __future__ import annotations

import abc
import atexit
import contextlib
import os
from types import TracebackType
from typing import Self

import docker
import docker.errors
from docker.models.containers import Container
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from slurm_testbed import engine, vm
from slurm_testbed.container.substrate import ContainerSubstrate
from slurm_testbed.data import is_checkout
from slurm_testbed.errors import EngineError, NotStartedError
from slurm_testbed.images import END_OF_LIFE, exists


class StartedContainer(DockerContainer):
    """A container of testcontainers, without Ryuk where its image is not at hand: we clean up by our labels.

    Args:
        image: its image.
        client: the engine that starts it.
    """

    def __init__(self, image: str, client: docker.DockerClient) -> None:
        # testcontainers looks for an engine by its own rules, which know other places than ours, and tells the whole
        # process of it: with a version it only notes where, and asks nobody.
        before = os.environ.get("DOCKER_HOST")
        try:
            super().__init__(image, docker_client_kw={"environment": {}, "version": client.api.api_version})
        finally:
            if before is None:
                os.environ.pop("DOCKER_HOST", None)
            else:
                os.environ["DOCKER_HOST"] = before
        self.get_docker_client().client = client
        self.image = image

    def start(self) -> Self:
        before = testcontainers_config.ryuk_disabled
        testcontainers_config.ryuk_disabled = before or not self._has_ryuk()
        try:
            return super().start()
        finally:
            testcontainers_config.ryuk_disabled = before

    def _has_ryuk(self) -> bool:
        try:
            self.get_docker_client().client.images.get(testcontainers_config.ryuk_image)
        except docker.errors.ImageNotFound:
            return False
        return True


class ContainerLife(abc.ABC):
    """One container of ours, from its start to its removal, which comes at the latest when this process ends.

    A subclass names it, makes it, and says when it is ready.
    """

    image: str
    name: str
    _started: StartedContainer | None = None
    #: Where the engine runs.
    _place = vm.Place()
    #: Whether it stays when this process ends.
    _outlives = False

    @abc.abstractmethod
    def _create(self, client: docker.DockerClient) -> StartedContainer:
        """The container as it shall be started, with the files that its first process finds."""

    @abc.abstractmethod
    def _wait_ready(self, substrate: ContainerSubstrate) -> None:
        """Wait until the container, which is started, can be used."""

    def start(self) -> Self:
        """Start the container and wait until it is ready; nothing is left of one that fails.

        Raises:
            EngineError: the image is missing, or the engine refuses.
        """
        client = engine.connect()
        check_image(client, self.image)
        engine.sweep_once(client)
        self._place = vm.place_of(client)
        if not self._outlives:
            atexit.register(self.stop)
        try:
            self._started = self._create(client)
            self._started.start()
            substrate = ContainerSubstrate(self.container, host=engine.address(client), place=self._place)
            self._wait_ready(substrate)
        except docker.errors.APIError as error:
            self.stop()
            raise EngineError(f"the engine refused to start {self.image}: {error.explanation}") from error
        except BaseException:
            # Ctrl-C may have come between a request and its answer, of which stop() knows nothing; and what was asked
            # for may still be on its way.
            atexit.register(_remove_named, client, self.name)
            _remove_named(client, self.name)
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Remove the container with its volumes; a second call does nothing."""
        atexit.unregister(self.stop)
        if self._started is not None:
            started, self._started = self._started, None
            with contextlib.suppress(docker.errors.NotFound):
                started.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def container(self) -> Container:
        """The running container, as the docker library knows it."""
        if self._started is None:
            raise NotStartedError(self)
        return self._started.get_wrapped_container()


def _remove_named(client: docker.DockerClient, name: str) -> None:
    """Remove the container and the network of a name that is one start's own, as far as they are there."""
    with contextlib.suppress(docker.errors.APIError):  # else the next sweep does it
        for container in client.containers.list(all=True, sparse=True, filters={"name": f"^/?{name}$"}):
            container.remove(force=True, v=True)
        for network in client.networks.list(names=[name]):
            network.remove()


def check_image(client: docker.DockerClient, image: str) -> None:
    """Have an image here: of a name with a registry it is pulled.

    A name without a registry is ours and built here: a public registry may have a stranger's image of that name.

    Args:
        client: the engine.
        image: the image's name.

    Raises:
        EngineError: it is not here, and cannot be pulled.
    """
    if exists(client, image):
        return
    registry, slash, _ = image.partition("/")
    if slash and ("." in registry or ":" in registry):
        _pull(client, image)
        return
    name, _, tag = image.rpartition("/")[2].partition(":")
    # Who has the wheel alone has no tasks.
    command = "invoke build --image" if is_checkout() else "python -m slurm_testbed.images"
    raise EngineError(f"there is no image {image}", hint=f"make it: {command} {name} --release {tag or 'VERSION'}")


def _pull(client: docker.DockerClient, image: str) -> None:
    for name in (image, image + END_OF_LIFE):
        try:
            pulled = client.images.pull(name)
        except docker.errors.NotFound:
            continue
        except docker.errors.APIError as error:
            raise EngineError(
                f"{image} cannot be pulled: {error.explanation}", hint="see whether docker pull does it; docker login"
            ) from error
        if name != image:
            pulled.tag(image)
        return
    raise EngineError(
        f"there is no image {image} in its registry, nor {image}{END_OF_LIFE}",
        hint="see docs/publishing.md, which has the tags; REPOSITORY may name another repository",
    )
