"""Partitions as a site's configuration and as sinfo have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jupyterhub_moss.models import PartitionAllResources

from jupyterhub_slurmspawner.limits import time_limit

#: The shortest time that the page's tab Simple offers.
SHORTEST = 3600
_GPU = re.compile(r"gpu(?::(?P<type>[^:(]+))?:(?P<count>\d+)(?:\(.*\))?")


def convert(partitions: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Bring a configuration up to today's jupyterhub-moss, and check what the page needs.

    Args:
        partitions: `c.MOSlurmSpawner.partitions`, where a partition may have the old `venv`.

    Returns:
        The partitions, and what was converted, in words.

    Raises:
        ValueError: a partition has `venv` and its successor, or less than an hour as max_runtime.

    Example:
        >>> convert({"cpu": {"venv": "/opt/jupyter/bin/", "gpu": None}})[0]["cpu"]["jupyter_environments"]
        {'default': {'description': 'Default', 'path': '/opt/jupyter/bin/'}}
    """
    converted, said = {}, []
    for name, given in partitions.items():
        partition = dict(given)
        if "venv" in partition:
            if partition.get("jupyter_environments"):
                raise ValueError(f"partition {name} has jupyter_environments and the old venv: leave out venv")
            path = partition.pop("venv")
            partition["jupyter_environments"] = {"default": {"description": "Default", "path": path}}
            said.append(
                f"partition {name}: venv is now jupyter_environments, and is taken as "
                f'{{"default": {{"description": "Default", "path": "{path}"}}}}: write it so'
            )
            if partition.get("gpu", "") is None:
                # Then it meant that there are none; today it means to ask Slurm.
                partition["gpu"] = ""
                said.append(f'partition {name}: gpu: None beside venv is taken as gpu: "", no GPUs: write it so')
        longest = partition.get("max_runtime")
        if longest is not None and longest < SHORTEST:
            raise ValueError(
                f"partition {name}: max_runtime is {longest} s, but the page offers nothing under an hour: "
                f"have {SHORTEST} at least, or leave it out to have the limit that Slurm has"
            )
        converted[name] = partition
    return converted, said


@dataclass
class _Group:
    """The nodes of a partition that are alike: one line of sinfo."""

    partition: str
    nodes: str
    cores_per_node: str
    cores: str
    gres: str
    memory: str
    limit: str

    def gpu(self) -> tuple[str, int]:
        """The template and the number of the first GPUs per node; `gpu:2`, without a type, counts too."""
        # Commas also stand in the brackets of (S:0,1).
        for entry in re.split(r",(?![^(]*\))", self.gres):
            if found := _GPU.fullmatch(entry.strip()):
                return f"gpu:{found['type']}:{{}}" if found["type"] else "gpu:{}", int(found["count"])
        return "", 0


def resources(sinfo: str) -> dict[str, PartitionAllResources]:
    """What sinfo says of each partition.

    Args:
        sinfo: the output of `sinfo --all --exact --noheader --format='%R %F %c %C %G %m %l'`: a line for each kind of
            node of a partition, or one of zeros where it has no node.

    Returns:
        Nodes and cores in all, and as limits those of the largest node.

    Raises:
        ValueError: it is no such output.
    """
    groups: dict[str, list[_Group]] = {}
    for group in _groups(sinfo):
        groups.setdefault(group.partition, []).append(group)
    return {name: _together(alike) for name, alike in groups.items()}


def _groups(sinfo: str) -> Iterator[_Group]:
    for line in sinfo.splitlines():
        words = line.split()
        if len(words) != 7:
            raise ValueError(f"sinfo's line {line!r} has not the 7 words of its format")
        yield _Group(*words)


def _together(groups: list[_Group]) -> PartitionAllResources:
    nodes = [_counts(group.nodes) for group in groups]
    cores = [_counts(group.cores) for group in groups]
    gpu, _ = max((group.gpu() for group in groups), key=lambda gpu: gpu[1])
    return PartitionAllResources(
        nnodes_total=sum(counts[-1] for counts in nodes),
        nnodes_idle=sum(counts[1] for counts in nodes),
        ncores_total=sum(counts[-1] for counts in cores),
        ncores_idle=sum(counts[1] for counts in cores),
        # A partition without nodes has neither cores nor memory, and the page cannot offer none.
        max_nprocs=max(1, *(_number(group.cores_per_node) for group in groups)),
        max_mem=max(1, *(_number(group.memory) for group in groups)),
        gpu=gpu,
        max_ngpus=max(count for template, count in (group.gpu() for group in groups) if template == gpu),
        max_runtime=int(time_limit(groups[0].limit).total_seconds()),
    )


def _counts(text: str) -> list[int]:
    """Allocated, idle, other, total."""
    return [_number(count) for count in text.split("/")]


def _number(text: str) -> int:
    """A number of sinfo's, which writes 2048 as 2K where it counts nodes or cores; `4+` is the least of several."""
    text = text.rstrip("+")
    units = {"K": 1024, "M": 1024**2}
    return int(float(text[:-1]) * units[text[-1]]) if text[-1:] in units else int(text)
