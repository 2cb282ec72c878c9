"""Find images/, compose/ and charts/, in a checkout or in the installed wheel."""

from __future__ import annotations

from pathlib import Path

from slurm_testbed.errors import SlurmTestbedError

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str, *, package: Path = _PACKAGE) -> Path:
    """Folder of files that are not Python: in the wheel inside the package, in a checkout beside it.

    Args:
        name: images, compose or charts.
        package: the folder of the package slurm_testbed.

    Raises:
        SlurmTestbedError: it is in neither place.

    Example:
        >>> folder("images").name
        'images'
    """
    # The wheel first: what stands beside an installed package belongs to others.
    places = [package / "_data" / name, package.parent / name]
    for place in places:
        if place.is_dir():
            return place
    raise SlurmTestbedError(
        f"there is no folder {name} of Slurm Testbed in {' or '.join(str(place.parent) for place in places)}",
        hint="install slurm-testbed from its wheel, or work in a clone of its repository",
    )


def is_checkout(*, package: Path = _PACKAGE) -> bool:
    """Whether this is a checkout, whose generated files are ours to write.

    Args:
        package: the folder of the package slurm_testbed.

    Example:
        >>> isinstance(is_checkout(), bool)
        True
    """
    return not (package / "_data").exists() and (package.parent / "pyproject.toml").exists()


def images() -> Path:
    """Folder of releases.yaml, the bake file and one folder for each family of images.

    Example:
        >>> (images() / "docker-bake.hcl").exists()
        True
    """
    return folder("images")


def compose() -> Path:
    """Folder of the compose files.

    Example:
        >>> compose().name  # doctest: +SKIP
        'compose'
    """
    return folder("compose")


def charts() -> Path:
    """Folder of the Helm charts.

    Example:
        >>> charts().name  # doctest: +SKIP
        'charts'
    """
    return folder("charts")
