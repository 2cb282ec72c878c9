"""What Slurm's configuration files say, as far as a node's agent needs it."""

from __future__ import annotations

import re
from pathlib import Path

_WORD = re.compile(r'(\w+)\s*=\s*("[^"]*"|\S+)')


def parse(path: Path) -> dict[str, str]:
    """The settings of slurm.conf or cgroup.conf by their names in small letters; none where there is no such file.

    Files that it includes are read too. Of nodes and partitions, which are many lines, the last one stays.

    Example:
        >>> parse(Path("/nowhere/slurm.conf"))
        {}
    """
    found: dict[str, str] = {}
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return found
    for line in text.replace("\\\n", " ").splitlines():
        line = line.partition("#")[0].strip()
        if include := re.match(r"include\s+(\S+)", line, re.IGNORECASE):
            found |= parse(path.parent / include[1])
        else:
            found |= {name.lower(): value.strip('"') for name, value in _WORD.findall(line)}
    return found


def cluster_name(slurm_conf: Path) -> str:
    """ClusterName; empty where the file does not say it."""
    return parse(slurm_conf).get("clustername", "")


def memory_limit_is_allocation(slurm_conf: Path, limit_bytes: int | None) -> bool:
    """Whether the kernel's limit on a job's memory is what Slurm allocated to it: https://slurm.schedmd.com/cgroup.conf.html

    Args:
        slurm_conf: cgroup.conf lies beside it.
        limit_bytes: the limit; None asks whether it can be at all.
    """
    conf = parse(slurm_conf.with_name("cgroup.conf"))
    if conf.get("constrainramspace", "no").lower() not in {"yes", "true", "1"}:
        return False
    if float(conf.get("allowedramspace", "100").rstrip("%")) != 100:
        return False
    # A smaller allocation gets MinRAMSpace.
    return limit_bytes is None or limit_bytes // 2**20 > int(conf.get("minramspace", "30"))
