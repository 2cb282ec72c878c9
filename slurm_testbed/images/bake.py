"""What the bake file can build."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from slurm_testbed import data, engine
from slurm_testbed.children import child
from slurm_testbed.errors import BuildError, EngineError
from slurm_testbed.releases import Release


def docker_program() -> str:
    """Path of the command that builds."""
    program = engine.THIS.which("docker")
    if not program:
        raise EngineError(
            "the command docker is not here, and it builds the images",
            hint="install Docker's command line with buildx 0.13 or newer (Debian: docker-cli docker-buildx)",
        )
    return program


def targets(
    *,
    group: str = "all",
    release: Release | str | None = None,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> dict[str, list[str]]:
    """What the bake file can build, with the tags of each image.

    Args:
        group: a group of the bake file: `all`, or `default`.
        release: the release, or its version, of which the tags are asked; by default the bake file's own.
        folder: another folder with a bake file.
        variables: further ones of the bake file, e.g. SLURM and SUITE, which are in some names.

    Raises:
        BuildError: the bake file is wrong.
        EngineError: docker or its buildx is missing.

    Example:
        >>> targets(release="24.11.5")["slurm-client"]
        ['slurm-testbed/slurm-client:24.11.5', 'slurm-testbed/slurm-client:24.11']
    """
    env = {**os.environ, **({"VERSION": str(release)} if release else {}), **(variables or {})}
    argv = [docker_program(), "buildx", "bake", "--print", group]
    with child(argv, cwd=folder or data.images(), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bake:
        out, err = bake.communicate()
    if bake.returncode:
        text = err.decode(errors="replace").strip()
        if "buildx" in text and "ERROR" not in text:
            raise EngineError(f"docker has no buildx: {text.splitlines()[0]}", hint="install docker-buildx")
        raise BuildError(f"the bake file cannot be read: {text.splitlines()[-1]}")
    graph = json.loads(out)
    found: dict[str, dict[str, list[str]]] = graph["target"]
    # Bake also names the targets that those of the group stand on.
    return {name: found[name].get("tags", []) for name in sorted(graph["group"][group]["targets"])}
