"""Images in one file for sites without a network: written whole or not at all, verified before the engine sees it."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, cast

import docker

from slurm_testbed import engine
from slurm_testbed.children import child
from slurm_testbed.errors import PublishError, UsageError
from slurm_testbed.images import WITHOUT_RELEASE, Say, exists, image_name, targets
from slurm_testbed.images.bake import docker_program
from slurm_testbed.images.say import to_stderr
from slurm_testbed.publish.contents import packages_in
from slurm_testbed.publish.cosign import Signer, Verifier
from slurm_testbed.publish.plan import SOURCE_IMAGE
from slurm_testbed.publish.refusals import why_not_its_source
from slurm_testbed.publish.sbom import sbom
from slurm_testbed.publish.streams import digest_of_file
from slurm_testbed.releases import Release, Releases, minor_of

SUMS = "SHA256SUMS"
SIGNATURE = f"{SUMS}.sig"
#: What `docker save` writes, compressed; and which image each name is.
IMAGES = "images.tar.gz"
NAMES = "images.json"


def save(
    file: Path,
    images: Sequence[str] = (),
    releases: Sequence[Release] = (),
    *,
    signer: Signer | None,
    say: Say = to_stderr,
) -> list[str]:
    """Write images to a file, each with its bill of materials, and the source of their Slurm where it is here.

    Args:
        file: the file; one that was there stays as it was until the new one is complete.
        images: as the bake file calls them; by default its group `default`.
        releases: by default the default release.
        signer: signs the checksums; None for a file without a signature.
        say: told what goes on, a line at a time.

    Returns:
        The names of the images, `:24.11` of `:24.11.5` among them where it is the same image.

    Raises:
        PublishError: an image is not here, or the file cannot be written.

    Example:
        >>> save(Path("slurm.tar"), signer=None)  # doctest: +SKIP
        ['slurm-testbed/slurm-client:24.11.5', …]
    """
    client = engine.connect()
    names = _names(client, images, releases, say)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{file.name}-", dir=file.parent) as name:
            folder = Path(name)
            ids = _fill(client, folder, names, say)
            _sum(folder, signer)
            whole = folder / "whole"
            # The checksums come first: whoever reads the file needs them first.
            first = [SUMS, SIGNATURE]
            with tarfile.open(whole, "w") as archive:
                for path in sorted(_members(folder), key=lambda path: (path.name not in first, path)):
                    archive.add(path, path.relative_to(folder).as_posix())
            whole.rename(file)
    except OSError as error:
        raise PublishError(f"{file} cannot be written: {error.strerror or error}", hint="see df") from None
    say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    return list(ids)


def load(file: Path, verifier: Verifier | None, *, say: Say = to_stderr) -> list[str]:
    """Read images from a file of `save` into the engine, which gets nothing of one that is damaged or not signed.

    Args:
        file: the file.
        verifier: checks who signed it; None to leave that out.
        say: told what goes on, a line at a time.

    Returns:
        The names of the images.

    Raises:
        PublishError: the file is damaged, somebody else's, or the engine did not take it.

    Example:
        >>> load(Path("slurm.tar"), Verifier("cosign.pub"))  # doctest: +SKIP
        ['slurm-testbed/slurm-client:24.11.5', …]
    """
    damaged = f"{file} is damaged, or not of invoke save"
    hint = "copy it again, and compare its SHA-256 with the original's"
    try:
        with tarfile.open(file) as archive:
            _check_sums(archive, damaged, hint)
            if verifier:
                if SIGNATURE not in archive.getnames():
                    raise PublishError(f"{file} is not signed", hint="take one that is, or say so: --unsigned")
                _check_signature(archive, verifier)
                say("signed by whom you named")
            else:
                say("its signature was not asked for")
            ids: dict[str, str] = json.loads(_read(archive, NAMES))
            client = engine.connect()
            say(f"loading {len(ids)} images")
            client.images.load(cast(IO[bytes], archive.extractfile(IMAGES)))
    except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise PublishError(f"{damaged}: {error}", hint=hint) from None
    except OSError as error:
        raise PublishError(f"{file} cannot be read: {error.strerror or error}") from None
    for name, wanted in ids.items():
        if not exists(client, name) or client.images.get(name).id != wanted:
            raise PublishError(f"the engine did not take {name} as it was saved", hint="see the engine's log")
    return list(ids)


def _names(client: docker.DockerClient, images: Sequence[str], releases: Sequence[Release], say: Say) -> list[str]:
    """The images to save, with the source of each release."""
    known = targets()
    wanted = list(images) or list(targets(group="default"))
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"no image {', '.join(unknown)}: there are {', '.join(known)}")
    found = [image_name(name) for name in wanted if name in WITHOUT_RELEASE]
    for release in releases or [Releases.load().default()[0]]:
        of_release = [image_name(name, release) for name in wanted if name not in WITHOUT_RELEASE]
        source = image_name(SOURCE_IMAGE, release)
        if of_release and source not in of_release:
            if _is_source(client, source, of_release):
                of_release.append(source)
            else:
                say(f"without the source of Slurm {release}: who passes the file on needs it (image {SOURCE_IMAGE})")
        found += of_release
    for name in found:
        if not exists(client, name):
            raise PublishError(f"there is no {name} to save", hint="build it: invoke build")
    return found


def _is_source(client: docker.DockerClient, source: str, images: Sequence[str]) -> bool:
    if not exists(client, source):
        return False
    labels = client.images.get(source).labels
    there = [name for name in images if exists(client, name)]
    return not any(why_not_its_source(client.images.get(name).labels, labels) for name in there)


def _fill(client: docker.DockerClient, folder: Path, names: Sequence[str], say: Say) -> dict[str, str]:
    """Everything that goes into the file, but the checksums; which image each name is."""
    bills = folder / "sbom"
    bills.mkdir()
    ids = {}
    for name in names:
        image = client.images.get(name)
        ids[name] = str(image.id)
        if (moving := _moving_name(name)) in image.tags:
            ids[moving] = str(image.id)
        short, created = name.rpartition("/")[2], datetime.fromisoformat(image.attrs["Created"])
        version = importlib.metadata.version("slurm-testbed")
        bill = sbom(short.partition(":")[0], ids[name], created, version, packages_in(client, name))
        (bills / f"{short.replace(':', '-')}.spdx.json").write_text(json.dumps(bill), encoding="utf-8")
    (folder / NAMES).write_text(json.dumps(ids, indent=1), encoding="utf-8")
    say(f"saving {', '.join(ids)}")
    argv = [docker_program(), "save", *ids]
    with (
        child(argv, env=engine.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        # Closed before the command is ended: it would wait for somebody to read on.
        cast(IO[bytes], process.stdout),
        (folder / IMAGES).open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
    ):
        shutil.copyfileobj(cast(IO[bytes], process.stdout), packed, 1 << 20)
        said = cast(IO[bytes], process.stderr).read().decode(errors="replace").strip()
        process.wait()
    if process.returncode:
        raise PublishError(f"the engine did not save the images: {said}")
    return ids


def _moving_name(name: str) -> str:
    """The name that follows the newest build of a minor release, as `docker run …:24.11` asks for."""
    image, _, version = name.rpartition(":")
    return f"{image}:{minor_of(version)}"


def _members(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sum(folder: Path, signer: Signer | None) -> None:
    """The checksums of all files, as sha256sum reads them, and their signature."""
    lines = [
        f"{digest_of_file(path).removeprefix('sha256:')}  {path.relative_to(folder).as_posix()}\n"
        for path in _members(folder)
    ]
    (folder / SUMS).write_text("".join(lines))
    if signer:
        signer.sign_file(folder / SUMS, folder / SIGNATURE)


def _check_sums(archive: tarfile.TarFile, damaged: str, hint: str) -> None:
    """Every file is there, is what its checksum says, and no other one is."""
    lines = _read(archive, SUMS).decode().splitlines()
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    names = [member.name for member in archive.getmembers()]
    if sorted(names) != sorted({*wanted, SUMS, *({SIGNATURE} & set(names))}):
        raise PublishError(f"{damaged}: it has {', '.join(names)}, and its checksums {', '.join(wanted)}", hint=hint)
    for name, digest in wanted.items():
        seen = hashlib.file_digest(cast(io.BufferedReader, archive.extractfile(name)), "sha256").hexdigest()
        if seen != digest:
            raise PublishError(f"{damaged}: the SHA-256 of {name} is {seen}, not {digest}", hint=hint)


def _check_signature(archive: tarfile.TarFile, verifier: Verifier) -> None:
    with tempfile.TemporaryDirectory(prefix="slurm-testbed-load-") as folder:
        for name in (SUMS, SIGNATURE):
            (Path(folder) / name).write_bytes(_read(archive, name))
        verifier.verify_file(Path(folder) / SUMS, Path(folder) / SIGNATURE)


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    return cast(IO[bytes], archive.extractfile(name)).read()
