"""One project of docker compose: its files, its settings, its containers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from slurm_testbed import engine
from slurm_testbed.errors import EngineError, tail

#: What compose puts on every container, network and volume, and knows them by: https://docs.docker.com/compose/
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
NETWORK, VOLUME = "com.docker.compose.network", "com.docker.compose.volume"


def literal(value: str) -> str:
    """A value as compose has it in a file, which puts variables in the place of `$NAME`.

    Example:
        >>> literal("pa$$word")
        'pa$$$$word'
    """
    return value.replace("$", "$$")


@dataclass(frozen=True)
class Project:
    """A compose project, driven by the docker command: testcontainers' DockerCompose knows no project name.

    Args:
        name: the project's name, which is the prefix of its containers, networks and volumes.
        files: the compose files, later ones override earlier ones.
        settings: variables for the interpolation in the files.

    Example:
        >>> Project("demo", [Path("cluster.yaml")], {}).command("up", "--wait")[-2:]
        ['up', '--wait']
    """

    name: str
    files: Sequence[Path]
    settings: Mapping[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        """The command line of one compose command."""
        program = shutil.which("docker")
        if program is None:
            raise EngineError("compose needs the docker command", hint="install docker-cli and docker-compose")
        files = [word for path in self.files for word in ("--file", str(path))]
        return [program, "compose", "--project-name", self.name, *files, "--progress", "quiet", *arguments]

    def run(self, *arguments: str) -> str:
        """Run a compose command and return what it printed.

        Raises:
            EngineError: with the end of what compose said.
        """
        env = {**engine.environment(), **self.settings}
        done = subprocess.run(self.command(*arguments), env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineError(
                f"docker compose {arguments[0]} of {self.name} ended with {done.returncode}: {tail(done.stderr, 6)}",
                hint="docker compose version says whether compose is there; invoke engine says what it needs",
            )
        return done.stdout

    def containers(self, client: docker.DockerClient) -> dict[str, Container]:
        """The project's containers by the name of their service, also those that have ended."""
        found = client.containers.list(all=True, ignore_removed=True, filters={"label": f"{PROJECT}={self.name}"})
        return {container.labels[SERVICE]: container for container in found}

    def make_networks(self, client: docker.DockerClient, labels: Mapping[str, str]) -> None:
        """Make the project's networks as its files say, before there is any container: compose takes them as its own.

        Args:
            client: the engine.
            labels: further labels.
        """
        for key, network in self._resources("networks").items():
            ours = {**network.get("labels", {}), **labels, PROJECT: self.name, NETWORK: key}
            client.networks.create(network["name"], labels=ours)

    def make_volumes(self, client: docker.DockerClient) -> None:
        """Make the project's volumes as its files say; one that is there stays as it is.

        Args:
            client: the engine.
        """
        for key, volume in self._resources("volumes").items():
            client.volumes.create(
                volume["name"],
                driver=volume.get("driver"),
                driver_opts=volume.get("driver_opts"),
                labels={**volume.get("labels", {}), PROJECT: self.name, VOLUME: key},
            )

    def _resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """The networks or volumes of the files, as compose understands them."""
        found: dict[str, dict[str, Any]] = json.loads(self.run("config", "--format", "json")).get(kind, {})
        return found
