"""Debian's packages without apt of this machine: mmdebstrap, which knows Debian's mirror itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slurm_testbed import engine
from slurm_testbed.children import output_of
from slurm_testbed.errors import BuildError
from slurm_testbed.vm.recipe import SUITE

_SHOWN_LINES = 10


def mmdebstrap(variant: str, packages: Sequence[str], target: Path, *options: str) -> None:
    """Unpack or install packages of the guest's Debian.

    Args:
        variant: `extract` unpacks the packages and what they depend on; `minbase` installs a Debian.
        packages: their names.
        target: a folder, or a file whose ending names its format.
        options: further options of mmdebstrap(1).

    Raises:
        BuildError: with the last lines of what it said.
    """
    program = engine.THIS.which("mmdebstrap")
    if not program:
        raise BuildError(
            "the virtual machine is made of Debian's packages, and mmdebstrap, which fetches them, is not here",
            hint="install it (Debian, Ubuntu: apt-get install mmdebstrap debian-archive-keyring)",
        )
    argv = [program, f"--variant={variant}", f"--include={','.join(packages)}", *options, SUITE, str(target)]
    code, text = output_of(argv)
    if code:
        raise BuildError(
            f"mmdebstrap could not fetch and unpack Debian {SUITE}; its last lines:\n{_tail(text)}",
            hint="it needs the network, and root or user namespaces",
        )


def _tail(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-_SHOWN_LINES:])
