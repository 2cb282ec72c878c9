"""`python -m slurm_testbed.images`: build images where only the wheel is, without the repository's tasks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slurm_testbed import engine
from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.images.builder import build
from slurm_testbed.releases import Releases


def main(arguments: Sequence[str] | None = None) -> int:
    """Build images, and print their names.

    Args:
        arguments: those of the command line, unless given.

    Returns:
        The exit status: that of the error where there is one.

    Example:
        >>> main(["slurm-singel-node"])  # doctest: +SKIP
        2
    """
    parser = argparse.ArgumentParser(prog="python -m slurm_testbed.images", description="Build images of Slurm.")
    parser.add_argument("image", nargs="*", help="e.g. slurm-single-node; those of `invoke build` if not given")
    parser.add_argument("--release", action="append", default=[], help="e.g. 24.11; the default one if not given")
    parser.add_argument("--source", type=Path, help="a tarball or checkout of Slurm to build")
    given = parser.parse_args(arguments)
    try:
        releases = [Releases.load().find(name) for name in given.release]
        engine.ensure()
        made = build(given.image, releases, source=given.source)
    except SlurmTestbedError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    sys.stdout.write("".join(f"{image.name}\n" for image in made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
