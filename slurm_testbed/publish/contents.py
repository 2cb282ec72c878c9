"""What is in an image: Debian's packages, Python's, npm's, and Slurm; read from its files, without running it."""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
import shlex
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import HeaderParser
from typing import IO, Any, cast

import docker
from debian.deb822 import Packages
from packageurl import PackageURL

from slurm_testbed.engine import LABEL, LABEL_CLUSTER, LABEL_OWNER, owner
from slurm_testbed.publish.licences import Licence, debian_licence, npm_licence, python_licence
from slurm_testbed.publish.streams import Chunks

_STATUS = "var/lib/dpkg/status"
_RELEASE = "usr/share/slurm-testbed/release.env"
_OS_RELEASE = "usr/lib/os-release"
_COPYRIGHT = re.compile(r"usr/share/doc/([^/]+)/copyright")
_DOC = re.compile(r"usr/share/doc/[^/]+")
#: What lies in dist-packages belongs to Debian's packages, which are counted already.
_PYTHON = re.compile(
    r"(.+/site-packages/[^/]+\.dist-info)/(METADATA|(?:licenses/)?(?:.*/)?(?:LICEN[CS]E|COPYING|NOTICE)[^/]*)"
)
_NPM = re.compile(r".+/node_modules/(?:@[^/]+/)?[^/@]+/package\.json")
#: No text that we read is larger, in bytes.
_LARGEST = 4_000_000


@dataclass(frozen=True)
class Package:
    """A package in an image.

    Attributes:
        kind: `deb`, `pypi`, `npm`, or `generic` for Slurm.
        name: its name.
        version: its version.
        licence: its licence.
        source: what it was built from: of Debian the source package with its version.
        supplier: who made it.
        purl: its package URL: https://github.com/package-url/purl-spec
    """

    kind: str
    name: str
    version: str
    licence: Licence
    source: str = ""
    supplier: str = ""
    purl: str = ""


@dataclass
class _Files:
    """Those files of an image that say what is in it."""

    texts: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def read(self, path: str) -> str:
        """A file's text, through symbolic links of its own or of its folder; empty where there is none."""
        for _ in range(8):
            if path in self.texts:
                return self.texts[path]
            folder, name = posixpath.split(path)
            if path in self.links:
                path = _joined(folder, self.links[path])
            elif folder in self.links:
                path = posixpath.join(_joined(posixpath.dirname(folder), self.links[folder]), name)
            else:
                break
        return ""


def packages_in(client: docker.DockerClient, name: str) -> list[Package]:
    """All packages in an image, sorted by kind and name.

    Args:
        client: the engine.
        name: the image, which is not run.

    Example:
        >>> [p.name for p in packages_in(engine.connect(), "slurm-testbed/slurm-client:24.11")][:2]  # doctest: +SKIP
        ['apt', 'base-files']
    """
    files = _Files()
    with _exported(client, name) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            _take(files, archive, member)
    labels = client.images.get(name).labels
    found = [*_debian(files), *_python(files), *_npm(files), *_slurm(files, labels)]
    return sorted(found, key=lambda package: (package.kind, package.name, package.version))


@contextlib.contextmanager
def _exported(client: docker.DockerClient, name: str) -> Iterator[IO[bytes]]:
    """The files of an image as an archive, by way of a container that never starts."""
    # The command stands for none: an image from scratch has no program, and none is run.
    container = client.containers.create(
        name, command=["none"], network_mode="none", labels={LABEL_CLUSTER: "publish", LABEL_OWNER: owner()}
    )
    try:
        # The stubs deny it, but the chunks are bytes.
        yield cast(IO[bytes], Chunks(cast(Iterator[bytes], container.export(chunk_size=1 << 20))))
    finally:
        container.remove(v=True, force=True)


def _take(files: _Files, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = member.name.removeprefix("./")
    wanted = path in {_STATUS, _RELEASE, _OS_RELEASE} or _COPYRIGHT.fullmatch(path)
    if member.issym() and (wanted or _DOC.fullmatch(path)):
        files.links[path] = member.linkname
    elif member.isfile() and member.size <= _LARGEST and (wanted or _PYTHON.fullmatch(path) or _NPM.fullmatch(path)):
        files.texts[path] = cast(IO[bytes], archive.extractfile(member)).read().decode(errors="replace")


def _joined(folder: str, target: str) -> str:
    return posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")


def _debian(files: _Files) -> Iterator[Package]:
    distro = _settings(files.read(_OS_RELEASE)).get("VERSION_ID", "")
    for entry in Packages.iter_paragraphs(files.read(_STATUS).splitlines(), use_apt_pkg=False):
        if "installed" not in entry.get("Status", "").split():
            continue
        name, version = entry["Package"], entry["Version"]
        source, _, of_source = entry.get("Source", name).partition(" ")
        qualifiers = {"arch": entry["Architecture"], **({"distro": f"debian-{distro}"} if distro else {})}
        yield Package(
            "deb",
            name,
            version,
            debian_licence(
                name, files.read(f"usr/share/doc/{name}/copyright") or "Its copyright file is not in the image."
            ),
            source=f"{source} {of_source.strip('()') or version}",
            supplier=entry.get("Maintainer", ""),
            purl=PackageURL("deb", "debian", name, version, qualifiers).to_string(),
        )


def _python(files: _Files) -> Iterator[Package]:
    for path, text in files.texts.items():
        match = _PYTHON.fullmatch(path)
        if not match or match[2] != "METADATA":
            continue
        meta = HeaderParser().parsestr(text)
        name, version = meta["Name"], meta["Version"]
        licences = [
            files.texts[other] for other in sorted(files.texts) if other.startswith(f"{match[1]}/") and other != path
        ]
        yield Package(
            "pypi",
            name,
            version,
            python_licence(
                name,
                meta.get("License-Expression", ""),
                meta.get("License", ""),
                meta.get_all("Classifier", []),
                licences,
            ),
            supplier=meta.get("Author", ""),
            purl=PackageURL("pypi", None, name.lower().replace("_", "-"), version).to_string(),
        )


def _npm(files: _Files) -> Iterator[Package]:
    for path, text in files.texts.items():
        if not _NPM.fullmatch(path):
            continue
        content: dict[str, Any] = json.loads(text)
        name, version = content.get("name"), content.get("version")
        if not name or not version:  # a folder of a package, not one itself
            continue
        namespace, _, short = name.rpartition("/")
        yield Package(
            "npm",
            name,
            version,
            npm_licence(name, content["license"] if isinstance(content.get("license"), str) else ""),
            purl=PackageURL("npm", namespace or None, short, version).to_string(),
        )


def _slurm(files: _Files, labels: dict[str, str]) -> Iterator[Package]:
    """Slurm itself, which is no package here, not even where it comes from some."""
    release = labels.get(f"{LABEL}.release")
    if not release:
        return
    of_tree = _settings(files.read(_RELEASE))
    yield Package(
        "generic",
        "slurm",
        release,
        Licence("GPL-2.0-or-later"),
        source=of_tree.get("SLURM_SOURCE") or labels.get(f"{LABEL}.source", ""),
        supplier="SchedMD LLC",
        purl=PackageURL("generic", None, "slurm", release).to_string(),
    )


def _settings(text: str) -> dict[str, str]:
    """Variables as a shell would read them."""
    pairs = (line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
    return {name: " ".join(shlex.split(value)) for name, value in pairs}
