"""Where images/, compose/ and charts/ are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_testbed import data
from slurm_testbed.errors import SlurmTestbedError


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder of a package that has nothing beside or inside it."""
    folder = tmp_path / "site" / "slurm_testbed"
    folder.mkdir(parents=True)
    return folder


def test_checkout_has_its_folders_beside_the_package(package: Path) -> None:
    (package.parent / "images").mkdir()
    (package.parent / "pyproject.toml").touch()

    assert data.folder("images", package=package) == package.parent / "images"
    assert data.is_checkout(package=package), "a checkout was not recognised"


def test_wheel_has_them_inside_even_if_others_lie_beside_it(package: Path) -> None:
    (package.parent / "images").mkdir()
    (package / "_data" / "images").mkdir(parents=True)

    assert data.folder("images", package=package) == package / "_data" / "images"
    assert not data.is_checkout(package=package), "generated files would be written into an installed package"


def test_missing_folder_names_both_places(package: Path) -> None:
    with pytest.raises(SlurmTestbedError, match=r"no folder charts .*_data or .*site") as error:
        data.folder("charts", package=package)

    assert "clone" in error.value.hint


def test_this_repositorys_images_are_found() -> None:
    assert (data.images() / "docker-bake.hcl").is_file()
