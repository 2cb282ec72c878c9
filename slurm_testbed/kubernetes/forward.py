"""Ports of pods on this machine, by `kubectl port-forward`."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from typing import IO, cast

from slurm_testbed.errors import EngineError
from slurm_testbed.kubernetes.kubectl import Kubectl

_SAYS = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) -> ")


@dataclass
class Forwards:
    """Ports that are forwarded until `close`.

    Args:
        kubectl: kubectl in the pods' namespace.
    """

    kubectl: Kubectl
    _running: dict[tuple[str, int], tuple[subprocess.Popen[str], int]] = field(default_factory=dict)

    def port(self, pod: str, port: int) -> int:
        """The port of this machine that leads to a port of a pod; it begins to where it does not yet.

        Args:
            pod: the pod.
            port: its port.

        Raises:
            EngineError: kubectl does not forward it.
        """
        process, here = self._running.get((pod, port), (None, 0))
        if process is not None and process.poll() is None:
            return here
        argv = self.kubectl.argv("port-forward", "--address=127.0.0.1", f"pod/{pod}", f":{port}")
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )
        # It says where as soon as it listens, or ends.
        said = cast(IO[str], process.stdout).readline()
        found = _SAYS.match(said)
        if not found:
            process.kill()
            raise EngineError(f"port {port} of {pod} does not come here: {process.communicate()[1].strip() or said}")
        self._running[pod, port] = process, int(found[1])
        return int(found[1])

    def close(self) -> None:
        """End them all."""
        for process, _ in self._running.values():
            process.terminate()
            process.communicate()
        self._running.clear()
