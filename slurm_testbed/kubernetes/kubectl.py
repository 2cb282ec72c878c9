"""kubectl in one namespace."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_testbed.errors import EngineError

_LOGGED = re.compile(r"[EIW]\d{4} ")
#: What kubectl adds to a command's own error output.
_ENDED = re.compile(r"command terminated with exit code \d+\n?\Z")


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace of the Kubernetes that KUBECONFIG names.

    Args:
        program: its path.
        namespace: the namespace.
    """

    program: Path
    namespace: str

    def argv(self, *arguments: str) -> list[str]:
        """The whole command.

        Example:
            >>> Kubectl(Path("/usr/bin/kubectl"), "hpc").argv("get", "pods")
            ['/usr/bin/kubectl', '--namespace=hpc', 'get', 'pods']
        """
        return [str(self.program), f"--namespace={self.namespace}", *arguments]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run it, and return what it said.

        Args:
            arguments: of kubectl.
            stdin: its standard input.

        Raises:
            EngineError: with kubectl's own text.

        Example:
            >>> Kubectl(Path("/usr/bin/kubectl"), "hpc")("get", "pods", "--output=name")  # doctest: +SKIP
            'pod/slurm-cluster-node-0\\n'
        """
        done = subprocess.run(self.argv(*arguments), input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            # Of its tries it writes lines for its developers: E1122 07:55:47.045308 …
            said = [line for line in done.stderr.splitlines() if not _LOGGED.match(line)]
            raise EngineError(f"kubectl {' '.join(arguments[:3])}: {' '.join(said)}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """What `kubectl get` knows, as it is in the API.

        Example:
            >>> Kubectl(Path("/usr/bin/kubectl"), "hpc").get("statefulset")["items"]  # doctest: +SKIP
            [...]
        """
        return json.loads(self("get", *arguments, "--output=json"))

    def exec(self, pod: str, container: str, argv: Sequence[str], stdin: bytes | None) -> tuple[int, str, str]:
        """Run a command in a container as its own user.

        Args:
            pod: the pod.
            container: the container.
            argv: the command.
            stdin: its standard input; None for none.

        Returns:
            Its exit status, output and error output.

        Raises:
            EngineError: it was not run, or nobody knows how it ended.
        """
        interactive = ["--stdin"] if stdin is not None else []
        command = self.argv("exec", *interactive, f"--container={container}", pod, "--", *argv)
        # Without --stdin nothing of it is sent.
        done = subprocess.run(command, capture_output=True, check=False, input=stdin or b"")
        out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        if done.returncode and not _ENDED.search(err):
            raise EngineError(f"Kubernetes did not run {argv[0]} in {pod}: {err.strip()}")
        return done.returncode, out, _ENDED.sub("", err)
