"""The package as strangers get it: wheel and sdist need no repository, and a project that installs one has a Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from fixtures.archives import unpack
from slurm_testbed.releases import Release

ROOT = Path(__file__).resolve().parents[2]
DATA = "slurm_testbed/_data"
#: Folders that are not Python, and that the library reads.
FOLDERS = ("charts", "compose", "images")

#: All that the project of a stranger has.
SUITE = """\
from slurm_testbed import Slurm


def test_job_of_two_tasks_completes(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="srun echo done by $SLURM_NTASKS", ntasks=2, user="alice")

    assert job.wait().state == "COMPLETED"
    assert job.output() == "done by 2\\n" * 2
"""
TYPED = """\
from slurm_testbed import Slurm, SlurmContainer

with SlurmContainer("24.11", nodes=2) as slurm:
    state: str = slurm.sbatch(wrap="true").wait().state
    reveal_type(slurm.sbatch(wrap="true"))
    slurm.sbatch(wrap="true", user=1000)
"""


def run(*argv: str | Path, cwd: Path, status: int = 0, **env: str) -> str:
    """What a command says; it must end with the status."""
    # A PYTHONPATH would bring the checkout back.
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(argv, cwd=cwd, env={**inherited, **env}, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == status, f"{argv} ended with {done.returncode}: {said}"
    return said


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the sdist of this checkout, by the end of their names."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--directory", folder, cwd=ROOT)
    return {path.name.rpartition(".")[2]: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def python(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in an environment of its own, into which only the wheel was installed, by pip."""
    folder = tmp_path_factory.mktemp("stranger") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(python, *install, f"slurm-testbed[pytest] @ {built['whl'].as_uri()}", cwd=folder)
    return python


def tracked(*folders: str) -> dict[str, bytes]:
    """The files of this repository that git knows of, with their content; a link has that of its target."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name: (ROOT / name).read_bytes() for name in listed.split("\0") if name and (ROOT / name).is_file()}


def test_wheel_has_every_file_of_its_folders_and_no_other(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["whl"]) as wheel:
        files = {name.removeprefix(f"{DATA}/"): wheel.read(name) for name in wheel.namelist() if DATA in name}
        others = {name for name in wheel.namelist() if DATA not in name and ".dist-info/" not in name}

    wanted = tracked(*FOLDERS)
    assert sorted(files) == sorted(wanted)
    assert [name for name in wanted if files[name] != wanted[name]] == [], "their content differs"
    assert others == set(tracked("slurm_testbed")), "the package's own files"


def test_wheel_keeps_what_can_be_executed(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["whl"]) as wheel:
        modes = {one.filename.removeprefix(f"{DATA}/"): one.external_attr >> 16 for one in wheel.infolist()}

    lost = [name for name in tracked(*FOLDERS) if os.access(ROOT / name, os.X_OK) and not modes[name] & 0o111]

    assert lost == [], "an image that is built from the wheel could not run them"


def test_sdist_makes_the_same_wheel(built: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(built["gz"]) as sdist:
        unpack(sdist, tmp_path)
    (unpacked,) = tmp_path.iterdir()

    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path, cwd=unpacked)

    again = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(built["whl"]) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        assert [name for name in one.namelist() if one.read(name) != other.read(name)] == [], "their content differs"


@pytest.mark.deep
def test_empty_project_installs_the_wheel_and_its_one_test_passes(
    python: Path, slurm_release: Release, tmp_path: Path
) -> None:
    (tmp_path / "test_mine.py").write_text(SUITE)

    where = run(python, "-c", "import slurm_testbed; print(slurm_testbed.__file__)", cwd=tmp_path)
    said = run(python, "-m", "pytest", f"--slurm-release={slurm_release.version}", "-v", cwd=tmp_path)

    assert Path(where.strip()).is_relative_to(python.parents[1]), f"this is another package: {where}"
    assert f"test_mine.py::test_job_of_two_tasks_completes[{slurm_release.minor}] PASSED" in said, said


@pytest.mark.deep
def test_installed_package_tells_a_type_checker_its_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)

    # The checker is ours; it looks at the packages of the stranger.
    checker = (sys.executable, "-m", "mypy", "--strict", f"--python-executable={python}", "typed.py")
    said = run(*checker, cwd=tmp_path, status=1)

    assert 'Revealed type is "slurm_testbed.slurm.Job"' in said, said
    assert 'Argument "user" to "sbatch" of "Slurm" has incompatible type "int"; expected "str | None"' in said, said
    assert "Found 1 error" in said, said


@pytest.mark.deep
def test_installed_package_says_how_to_make_an_image_that_is_missing(python: Path, tmp_path: Path) -> None:
    start = 'from slurm_testbed import SlurmContainer; SlurmContainer("24.11").start()'
    said = run(python, "-c", start, cwd=tmp_path, status=1, REPOSITORY="nobody")
    unknown = run(python, "-m", "slurm_testbed.images", "slurm-singel-node", cwd=tmp_path, status=2)

    assert "Hint: make it: python -m slurm_testbed.images slurm-single-node --release 24.11.5" in said, said
    assert "no image slurm-singel-node: there are " in unknown, unknown
    assert "slurm-single-node" in unknown, unknown
