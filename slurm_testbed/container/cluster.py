"""A whole cluster in one container."""

from __future__ import annotations

import base64
import contextlib
import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import docker
import docker.errors
import requests
from docker.models.networks import Network

from slurm_testbed import engine
from slurm_testbed.container.life import ContainerLife, StartedContainer
from slurm_testbed.container.substrate import ContainerSubstrate
from slurm_testbed.errors import EngineError, NotReadyError, NotStartedError, UsageError
from slurm_testbed.evidence import leave
from slurm_testbed.images import image_name
from slurm_testbed.keys import ClusterKeys
from slurm_testbed.readiness import Timeline
from slurm_testbed.releases import Releases
from slurm_testbed.share import shared_paths
from slurm_testbed.slurm import REST_PORT, Slurm

#: Capabilities that jobs need to be held in cgroups, by the host's cgroup version, and why:
#: SYS_ADMIN remounts the container's own cgroup tree writable, SYS_NICE binds other users' processes to cores,
#: SYS_PTRACE lets slurmstepd read what they use from /proc/PID/io, without which sacct has no MaxRSS.
CGROUP_CAPABILITIES = ("SYS_ADMIN", "SYS_NICE", "SYS_PTRACE")


class SlurmContainer(ContainerLife, Slurm):
    """A cluster of one container, with any number of nodes, from the image slurm-single-node.

    Args:
        release: a version or minor release, `24.11.5` or `24.11`; the default release where none is given.
        nodes: how many compute nodes; each is a slurmd of its own.
        cpus: processors of each node; by default the machine's own, or 8 if that is more and nothing binds
            jobs to cores.
        memory: MiB of each node.
        accounting: with slurmdbd on MariaDB.
        cgroups: hold jobs in cgroups: memory, cores and devices are enforced. Needs the capabilities
            of `CGROUP_CAPABILITIES`.
        keys: keys to use; by default the cluster makes its own.
        conf: fragments of slurm.conf by file name; the name of one of ours, e.g. `60-nodes.conf`, replaces it.
        env: further settings of the image: docs/images.md.
        share: folders of this machine that the container sees under the same path, for `on_path`;
            `this_python()` names those that its jobs need to run the caller's Python.
        image: an image instead of the one of the release.
        deadline: seconds until the cluster must be ready.
        user: who submits where no user is named.
        owner: value of the owner label; by default this process, after whose death a sweep removes the cluster.

    Raises:
        EngineError: the image is missing, or the engine refuses.
        NotReadyError: with the daemons' logs.

    Example:
        >>> with SlurmContainer("24.11", nodes=2) as slurm:  # doctest: +SKIP
        ...     slurm.sbatch(wrap="hostname", nodes=2).wait().state
        'COMPLETED'
    """

    def __init__(
        self,
        release: str | None = None,
        *,
        nodes: int = 1,
        cpus: int | None = None,
        memory: int | None = None,
        accounting: bool = True,
        cgroups: bool = False,
        keys: ClusterKeys | None = None,
        conf: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        share: Sequence[str | Path] = (),
        image: str | None = None,
        deadline: float = 60,
        user: str = "alice",
        owner: str | None = None,
    ) -> None:
        if nodes < 1:
            raise UsageError(f"a cluster has at least one node, not {nodes}")
        self.image = image or image_name("slurm-single-node", Releases.load().find(release).version)
        self.keys = keys
        self.deadline = deadline
        self.user = user
        self.name = f"slurm-{secrets.token_hex(4)}"
        self._conf = dict(conf or {})
        self._share = shared_paths(share)
        self._cgroups = cgroups
        self._owner, self._outlives = owner, owner is not None
        self._env = {
            "SLURM_NODES": str(nodes),
            "SLURM_ACCOUNTING": "yes" if accounting else "no",
            **({"SLURM_CPUS": str(cpus)} if cpus else {}),
            **({"SLURM_MEMORY": str(memory)} if memory else {}),
            **(env or {}),
        }
        self._network: Network | None = None

    def stop(self) -> None:
        """Remove the container, its volumes and its network; a second call does nothing."""
        super().stop()
        if self._network is not None:
            network, self._network = self._network, None
            with contextlib.suppress(docker.errors.NotFound):
                network.remove()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self, error)
        super().__exit__(kind, error, trace)

    @property
    def network_name(self) -> str:
        """The cluster's own network: a container that joins it reaches the controller by this cluster's name."""
        if self._network is None:
            raise NotStartedError(self)
        return cast(str, self._network.name)

    def munge_key(self) -> bytes:
        """The cluster's munge key, to give to another host: keep it out of logs."""
        text = self.run(["base64", "--wrap=0", "/etc/munge/munge.key"]).stdout
        return base64.b64decode(text)

    def timeline(self) -> Timeline:
        """What took how long at the start."""
        return Timeline.parse(self.substrate.logs(self.name))

    # --- parts of the start -----------------------------------------------------------------------------

    def _labels(self) -> dict[str, str]:
        return {engine.LABEL_CLUSTER: self.name, engine.LABEL_OWNER: self._owner or engine.owner()}

    def _create(self, client: docker.DockerClient) -> StartedContainer:
        self._network = client.networks.create(self.name, labels=self._labels())
        # The image's own deadlines, too.
        patience = {"SLURM_TESTBED_DEADLINE": str(math.ceil(self.deadline * self._place.speed)), **self._env}
        started = StartedContainer(self.image, client).with_name(self.name).with_envs(**patience)
        for path in self._share:
            started.with_volume_mapping(path, path, "rw")
        # testcontainers would publish on every address.
        started.ports[f"{REST_PORT}/tcp"] = cast(int, (engine.publishes_on(client), None))
        options: dict[str, Any] = {
            "hostname": self.name,
            "network": self.name,
            "labels": self._labels(),
            "healthcheck": _patient_healthcheck(self._place.speed),
        }
        if self._cgroups:
            options |= {"cap_add": list(CGROUP_CAPABILITIES), "cgroupns": "private"}
            if "name=apparmor" in " ".join(client.info()["SecurityOptions"] or []):
                # Docker's profile forbids mounting, which SYS_ADMIN is there for.
                options["security_opt"] = ["apparmor=unconfined"]
        # Copied in before the first process runs, not mounted: any engine can.
        if self.keys:
            started.with_copy_into_container(self.keys.munge.data, "/run/secrets/munge.key", 0o400)
            started.with_copy_into_container(self.keys.jwt.data, "/run/secrets/jwt_hs256.key", 0o400)
        for name, text in self._conf.items():
            started.with_copy_into_container(text.encode(), f"/etc/slurm/slurm.conf.d/{name}", 0o644)
        return started.with_kwargs(**options)

    def _wait_ready(self, substrate: ContainerSubstrate) -> None:
        Slurm.__init__(self, substrate, user=self.user)
        deadline = self.deadline * self._place.speed
        done = self.substrate.exec(self.name, ["slurm-ready", "--wait", str(int(deadline))])
        if done.returncode:
            if done.returncode != 1 or not done.stdout:
                # A container that ends takes the command with it (137), or the engine did not come to start it (126);
                # for a moment more the container is said to run.
                with contextlib.suppress(requests.RequestException):
                    self.container.wait(timeout=3)
            self.container.reload()
            if self.container.status != "running":
                said = [line for line in self.substrate.logs(self.name).splitlines() if "slurm-testbed: " in line]
                raise EngineError(f"{self.image} ended at its start: " + "\n".join(said[-4:]))
            raise NotReadyError(
                f"the cluster in {self.name} to be ready",
                deadline=deadline,
                last_state=(done.stdout + done.stderr).strip(),
                log=self.substrate.logs(self.name)[-4000:],
                hint=f"the image is {self.image}",
            )


def _patient_healthcheck(speed: float) -> dict[str, int]:
    """The image's own check as often as the engine bears it: one takes time from the start, and we do not wait for it.

    Nanoseconds, as the engine takes them; its start period, in which it checks each second, ends at once.
    """
    second = round(1e9 * speed)
    return {"interval": 10 * second, "timeout": 10 * second, "start_period": 1_000_000}
