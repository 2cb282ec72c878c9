"""Images for Apptainer, of the same files as one of ours, and without any registry."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import filelock

from slurm_testbed import engine
from slurm_testbed.errors import BuildError, UsageError
from slurm_testbed.images.builder import run_target
from slurm_testbed.images.names import WITH_SIF, image_name
from slurm_testbed.images.say import Say, to_stderr
from slurm_testbed.images.size import sizes

#: Apptainer makes an image of an empty folder too; compressed, a whole one has at least this part of the size.
_LEAST = 0.2
#: Seconds that another process may take to make it.
_PATIENCE = 1800.0


def sif_path(name: str = "viz-app") -> Path:
    """Where the image for Apptainer is, once `build_sif` has made it: in the user's cache folder.

    Args:
        name: the image, as the bake file calls it.

    Example:
        >>> sif_path().name  # doctest: +SKIP
        'slurm-testbed_viz-app_trixie.sif'
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "slurm-testbed" / "sif" / f"{image_name(name).replace('/', '_').replace(':', '_')}.sif"


def build_sif(name: str = "viz-app", *, base: str | None = None, say: Say = to_stderr) -> Path:
    """Make the image for Apptainer, in a container of ours: no Apptainer is needed here.

    Args:
        name: the image, as the bake file calls it.
        base: the base image; by default it is chosen, as for `build`.
        say: told what goes on, a line at a time.

    Returns:
        `sif_path` of it; a file that was there stays as it was until the new one is complete.

    Raises:
        UsageError: there is no such image, or it has no application to run.
        BuildError: it could not be made, or is too small to be whole.

    Example:
        >>> build_sif("viz-app")  # doctest: +SKIP
        PosixPath('/home/me/.cache/slurm-testbed/sif/slurm-testbed_viz-app_trixie.sif')
    """
    if name not in WITH_SIF:
        raise UsageError(
            f"there is no image for Apptainer of {name}", hint=f"there is one of {', '.join(sorted(WITH_SIF))}"
        )
    target = sif_path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        filelock.FileLock(target.with_suffix(".lock"), timeout=_PATIENCE),
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
    ):
        run_target(f"{name}-sif", {"SIF_FOLDER": folder}, base=base, say=say)
        made = Path(folder) / f"{name}.sif"
        whole = sizes(engine.connect(), [image_name(name)])[image_name(name)].uncompressed
        if made.stat().st_size < _LEAST * whole:
            raise BuildError(
                f"{name} for Apptainer has {made.stat().st_size / 1e6:.1f} MB, and {name} itself {whole / 1e6:.0f} MB",
                hint="it lacks files: build it again without the cache, docker buildx prune",
            )
        made.chmod(0o644)
        made.rename(target)
    return target
