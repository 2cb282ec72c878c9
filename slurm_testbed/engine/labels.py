"""The labels that say what is ours, and whose it is."""

from __future__ import annotations

import os
import socket

from slurm_testbed.engine.processes import live_process, namespace_of

#: Prefix of every label that we put on images, containers, networks and volumes.
LABEL = "org.slurm-testbed"
#: Carried by whatever belongs to a cluster; its value is the cluster's name.
LABEL_CLUSTER = f"{LABEL}.cluster"
#: Says who removes it: the value of `owner()`, perhaps with a name of its own after a slash, or `UP_OWNER`.
LABEL_OWNER = f"{LABEL}.owner"
#: Carried by every image of ours; its value is the version of the image's interface.
LABEL_INTERFACE = f"{LABEL}.interface"
#: Owner of what a person started and stops by name.
UP_OWNER = os.environ.get("SLURM_TESTBED_UP_OWNER", "up")


def owner() -> str:
    """This process as the value of `LABEL_OWNER`: host, process id, start time and PID namespace.

    Example:
        >>> owner().count(":") >= 2
        True
    """
    process = live_process(os.getpid())
    started = process[1] if process else ""
    return f"{socket.gethostname()}:{os.getpid()}:{started}@{namespace_of('self', 'pid')}"


def is_dead(label: str) -> bool:
    """Whether the owner is known to be gone: of this host and PID namespace, and not running."""
    host, _, rest = label.partition("/")[0].partition(":")
    pid, _, when = rest.partition(":")
    started, _, namespace = when.rpartition("@")
    if host != socket.gethostname() or namespace != namespace_of("self", "pid") or not pid.isdigit():
        return False
    process = live_process(int(pid))
    return process is None or process[1] != started
