"""A host that only has Slurm's commands, in one container."""

from __future__ import annotations

import math
import secrets
import subprocess
from collections.abc import Mapping, Sequence

import docker

from slurm_testbed import engine
from slurm_testbed.container.cluster import SlurmContainer
from slurm_testbed.container.life import ContainerLife, StartedContainer
from slurm_testbed.container.substrate import ContainerSubstrate
from slurm_testbed.errors import CommandError
from slurm_testbed.keys import Key


class SlurmClient(ContainerLife):
    """A container of slurm-client beside a cluster: a host that only has Slurm's commands and munged.

    Args:
        cluster: the cluster whose controller it speaks to; it joins the cluster's network.
        munge_key: its munge key; by default the cluster's own.
        image: an image instead of the cluster's release's.
        env: further settings of the image: docs/images.md.

    Example:
        >>> with SlurmContainer("24.11") as slurm, SlurmClient(slurm) as client:  # doctest: +SKIP
        ...     client.run(["srun", "id", "--name", "--user"], user="alice").stdout
        'alice\\n'
    """

    def __init__(
        self,
        cluster: SlurmContainer,
        *,
        munge_key: Key | None = None,
        image: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.cluster = cluster
        self.image = image or cluster.image.replace("slurm-single-node", "slurm-client")
        self.name = f"slurm-client-{secrets.token_hex(4)}"
        self._key = munge_key
        self._env = {"SLURMCTLD_HOST": cluster.name, **(env or {})}

    def _create(self, client: docker.DockerClient) -> StartedContainer:
        key = self._key or Key(kind="munge", data=self.cluster.munge_key())
        started = StartedContainer(self.image, client).with_name(self.name).with_envs(**self._env)
        started.with_copy_into_container(key.data, "/run/secrets/munge.key", 0o400)
        return started.with_kwargs(
            hostname=self.name,
            network=self.cluster.network_name,
            labels={engine.LABEL_CLUSTER: self.cluster.name, engine.LABEL_OWNER: engine.owner()},
        )

    def _wait_ready(self, substrate: ContainerSubstrate) -> None:
        self.substrate = substrate
        self.run(["slurm-ready", "--wait", str(math.ceil(30 * substrate.place.speed))])

    def run(
        self, argv: Sequence[str], *, user: str = "root", stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the client; see `Slurm.run`."""
        done = self.substrate.exec(self.name, argv, user=user, stdin=stdin)
        if check and done.returncode:
            raise CommandError(argv, done.returncode, done.stdout, done.stderr)
        return done
