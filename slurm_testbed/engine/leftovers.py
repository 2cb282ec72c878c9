"""Remove what the dead left on the engine, and our images."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import docker
import docker.errors
from docker.models.containers import Container

from slurm_testbed.engine.labels import LABEL_CLUSTER, LABEL_INTERFACE, LABEL_OWNER, is_dead

_log = logging.getLogger(__name__)


def sweep(client: docker.DockerClient, *, owned_by: str = "", everything: bool = False) -> list[str]:
    """Remove the containers, networks, volumes and folders of clusters whose owner has died.

    Args:
        client: the engine.
        owned_by: remove those of this owner as well, alive or not.
        everything: remove those of living owners, and those that `invoke up` started, as well.

    Returns:
        What was removed: kind and name.

    Example:
        >>> from slurm_testbed.engine import connect
        >>> isinstance(sweep(connect()), list)
        True
    """

    def is_due(labels: Mapping[str, str] | None) -> bool:
        label = (labels or {}).get(LABEL_OWNER, "")
        return everything or (bool(label) and label == owned_by) or is_dead(label)

    found: list[tuple[str, str, Mapping[str, str] | None, Callable[[], object]]] = []
    # Sparse: no inspection for each, which fails when another process removes one meanwhile.
    for container in client.containers.list(all=True, sparse=True, filters={"label": LABEL_CLUSTER}):
        name = (container.attrs.get("Names") or [container.id])[0].lstrip("/")
        action = functools.partial(_remove_container, client, container)
        found.append(("container", name, container.attrs.get("Labels"), action))
    found += [
        ("network", str(network.name), network.attrs.get("Labels"), network.remove)
        for network in client.networks.list(filters={"label": LABEL_CLUSTER})
    ]
    found += [
        ("volume", str(volume.name), volume.attrs.get("Labels"), volume.remove)
        for volume in client.volumes.list(filters={"label": LABEL_CLUSTER})
    ]
    found += [
        ("folder", str(folder), {LABEL_OWNER: owner}, functools.partial(shutil.rmtree, folder, ignore_errors=True))
        for folder, owner in _folders()
    ]
    return [f"{kind} {name}" for kind, name, labels, action in found if is_due(labels) and _remove(kind, name, action)]


def sweep_once(client: docker.DockerClient) -> None:
    """`sweep` before this process's first cluster on an engine, for the next ones have nothing more to find.

    Args:
        client: the engine.

    Example:
        >>> from slurm_testbed.engine import connect
        >>> sweep_once(connect())
    """
    if client.api.base_url not in _swept:
        _swept.add(client.api.base_url)
        sweep(client)


#: The engines that this process has swept.
_swept: set[str] = set()


def cluster_folder(name: str) -> Path:
    """Where this machine keeps files of a cluster: what compose reads, keys of its SSH users. See `make_folder`."""
    return Path(tempfile.gettempdir()) / f"{name}-compose"


def make_folder(name: str, owner: str) -> Path:
    """Make the folder of a cluster, readable for us alone; it says whose it is, as labels do of a container.

    Args:
        name: of the cluster.
        owner: value of the label `LABEL_OWNER`.

    Returns:
        `cluster_folder(name)`.

    Example:
        >>> folder = make_folder("slurm-example", owner="up")  # doctest: +SKIP
    """
    folder = cluster_folder(name)
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "owner").write_text(owner)
    return folder


def _folders() -> Iterator[tuple[Path, str]]:
    for file in cluster_folder("*").parent.glob(f"{cluster_folder('*').name}/owner"):
        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
            if file.stat().st_uid == os.getuid():
                yield file.parent, file.read_text()


def _remove_container(client: docker.DockerClient, container: Container) -> None:
    try:
        container.remove(v=True, force=True)
    except docker.errors.APIError as error:
        if "did not receive an exit event" not in str(error.explanation):
            raise
        _thaw(client, container)
        container.remove(v=True, force=True)


def _thaw(client: docker.DockerClient, container: Container) -> None:
    """Let go on what Slurm has frozen in a container whose first process was killed.

    To kill a step, Slurm freezes it first, and under cgroup v1 SIGKILL does not reach what is frozen (cgroups(7)): a
    container that is killed in this moment never ends. Only the engine's host can reach its groups.
    """
    script = 'find /freezer -path "*$0/*" -name freezer.state -exec sh -c "echo THAWED > {}" ";"'
    client.containers.run(
        container.attrs["ImageID"],
        [script, str(container.id)],
        entrypoint=["sh", "-c"],
        volumes={"/sys/fs/cgroup/freezer": {"bind": "/freezer", "mode": "rw"}},
        network_mode="none",
        labels={LABEL_CLUSTER: container.attrs["Labels"][LABEL_CLUSTER]},
        remove=True,
    )


def _remove(kind: str, name: str, action: Callable[[], object]) -> bool:
    """Whether we removed it: another process may be quicker, and the engine may refuse, which is logged."""
    try:
        action()
    except docker.errors.NotFound:
        return False
    except docker.errors.APIError as error:
        if "already in progress" in str(error.explanation):
            return False
        _log.warning("could not remove %s %s: %s", kind, name, error.explanation or error)
        return False
    return True


def remove_images(client: docker.DockerClient) -> list[str]:
    """Remove the images that carry our label; one that a container uses stays, with a warning.

    Args:
        client: the engine.

    Returns:
        Names, or ids, of the removed images.

    Example:
        >>> from slurm_testbed.engine import connect
        >>> isinstance(remove_images(connect()), list)  # doctest: +SKIP
        True
    """
    names = [
        name
        for image in client.images.list(filters={"label": LABEL_INTERFACE})
        for name in image.tags or [str(image.id)]
    ]
    return [name for name in names if _remove("image", name, functools.partial(client.images.remove, name))]
