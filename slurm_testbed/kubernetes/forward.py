"""Ports of pods on this machine, by `kubectl port-forward`."""

from __future__ import annotations

import re
import subprocess
import threading
from collections import deque
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
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
        )
        lines, said = cast(IO[str], process.stdout), ""
        # It says where as soon as it listens, or ends.
        for line in lines:
            if found := _SAYS.match(line):
                self._running[pod, port] = process, int(found[1])
                # It says a word of each connection before it serves it, and would wait for somebody to read it.
                threading.Thread(target=deque, args=(lines, 0), name="port-forward", daemon=True).start()
                return int(found[1])
            said += line
        process.wait()
        raise EngineError(f"port {port} of {pod} does not come here: {said.strip()}")

    def close(self) -> None:
        """End them all."""
        for process, _ in self._running.values():
            process.terminate()
            process.wait()
        self._running.clear()
