"""Publish images: everything under its digest first, signed, and only then under its tags."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import docker

from slurm_testbed import engine
from slurm_testbed.engine import LABEL
from slurm_testbed.errors import PublishError, UsageError
from slurm_testbed.images import Say
from slurm_testbed.images.say import to_stderr
from slurm_testbed.publish import oci
from slurm_testbed.publish.contents import packages_in
from slurm_testbed.publish.cosign import Signer
from slurm_testbed.publish.layout import Layouts
from slurm_testbed.publish.page import page
from slurm_testbed.publish.plan import SOURCE_IMAGE, Planned, planned
from slurm_testbed.publish.refusals import is_of_this_machine
from slurm_testbed.publish.registry import Registry, host_of
from slurm_testbed.publish.sbom import attestation, sbom
from slurm_testbed.releases import Release

#: In the index of an image: the source of its Slurm, repository and digest.
SOURCE_REFERENCE = f"{LABEL}.source-image"
_OCI = "org.opencontainers.image."
#: Labels that the index repeats, where whoever has pulled nothing reads them.
_ANNOTATIONS = ("title", "description", "version", "revision", "source", "licenses")


@dataclass(frozen=True)
class Published:
    """An image in a registry.

    Attributes:
        reference: as docker pull takes it, without a tag.
        digest: of its index.
        tags: its tags, the one that never moves first; not those that stay with an image of more platforms.
        platforms: for which there is one.
        size: of this machine's platform, compressed, in bytes.
        page: its page.
    """

    reference: str
    digest: str
    tags: tuple[str, ...]
    platforms: tuple[str, ...]
    size: int
    page: Path


@dataclass(frozen=True)
class _Made:
    """An image made ready: documents and blobs of this machine's platform."""

    plan: Planned
    manifests: tuple[oci.Blob, oci.Blob]
    blobs: Sequence[oci.Blob]
    annotations: Mapping[str, str]
    page: str
    bill: Mapping[str, Any]
    size: int


def push(
    address: str,
    images: Sequence[str] = (),
    releases: Sequence[Release] = (),
    *,
    signer: Signer | None,
    pages: Path,
    rebuilt: str = "",
    skip_missing: bool = False,
    dry_run: bool = False,
    unpublishable: bool = False,
    say: Say = to_stderr,
) -> list[Published]:
    """Publish images of the engine, each with its bill of materials, and with the source of its Slurm beside it.

    A tag is put when everything is there to which any tag of this push refers; before that, a failure leaves blobs that
    nobody sees. An image of another platform under the same tag that never moves stays beside this one.

    Args:
        address: the registry, perhaps with a path: `ghcr.io/me`.
        images: as the bake file calls them; by default its group `default`.
        releases: by default the default release.
        signer: signs each image; None for images without a signature.
        pages: folder of the images' pages, each with the bill of materials as a file beside it.
        rebuilt: what tells a build of the same versions with newer packages from others.
        skip_missing: leave out a release that is not here whole, and say why.
        dry_run: make everything, ask the registry nothing and send nothing.
        unpublishable: take images that must not be published, to a registry of this machine alone.
        say: told what goes on, a line at a time.

    Raises:
        PublishError: something must not be published, or the registry did not take it.
        UsageError: the address is none.

    Example:
        >>> push("ghcr.io/me", signer=Signer("cosign.key"), pages=Path("pages"))  # doctest: +SKIP
    """
    host = host_of(address)
    if unpublishable and not is_of_this_machine(host):
        raise UsageError(
            f"images that must not be published do not go to {host}: give a registry of this machine, as 127.0.0.1:5000"
        )
    client = engine.connect()
    plans = planned(
        client, images, releases, rebuilt=rebuilt, skip_missing=skip_missing, unpublishable=unpublishable, say=say
    )
    with tempfile.TemporaryDirectory(prefix="slurm-testbed-publish-") as folder:
        layouts = Layouts(client, Path(folder))
        made = [_make(client, layouts, plan, address.rstrip("/"), say) for plan in plans]
        registry = None if dry_run else Registry(address)
        pushed = _Push(registry, address.rstrip("/"), signer, pages, say)
        return pushed.all(made)


def _make(client: docker.DockerClient, layouts: Layouts, plan: Planned, address: str, say: Say) -> _Made:
    say(f"{plan.name}: compressing its layers, reading what is in it")
    manifest, blobs = layouts.manifest(plan.name)
    image = client.images.get(plan.name)
    packages = packages_in(client, plan.name)
    created = datetime.fromisoformat(image.attrs["Created"])
    bill = sbom(plan.image, manifest.digest, created, importlib.metadata.version("slurm-testbed"), packages)
    said, more = attestation(f"{address}/{plan.image}", manifest, bill)
    labels = image.labels
    size = sum(blob.size for blob in blobs)
    tags = [plan.tags.immutable, *plan.tags.moving]
    platform = oci.platform_of(manifest.descriptor)
    text = page(f"{address}/{plan.image}", manifest.digest, tags, platform, size, labels, packages)
    annotations = {_OCI + name: labels[_OCI + name] for name in _ANNOTATIONS if _OCI + name in labels}
    return _Made(plan, (manifest, said), [*blobs, *more], annotations, text, bill, size)


@dataclass(frozen=True)
class _Push:
    registry: Registry | None
    address: str
    signer: Signer | None
    pages: Path
    say: Say

    def all(self, made: Sequence[_Made]) -> list[Published]:
        """Bring the images there, then put their tags: those that never move first."""
        # Refused before anything is sent.
        there = [self._there(one) for one in made]
        sources: dict[str, str] = {}
        indexes = []
        for one, others in zip(made, there, strict=True):
            annotations = dict(one.annotations)
            release = str(one.plan.release)
            if one.plan.release and one.plan.image != SOURCE_IMAGE:
                annotations[SOURCE_REFERENCE] = f"{SOURCE_IMAGE}@{sources[release]}"
            index = oci.index([*(m.descriptor for m in one.manifests), *others], annotations)
            if one.plan.image == SOURCE_IMAGE:
                sources[release] = index.digest
            indexes.append(index)
        for one, index in zip(made, indexes, strict=True):
            self._bring(one, index)
        for one, index in zip(made, indexes, strict=True):
            self._tag(one.plan.image, index, one.plan.tags.immutable)
        moved = [
            [tag for tag in one.plan.tags.moving if self._move(one.plan.image, index, tag)]
            for one, index in zip(made, indexes, strict=True)
        ]
        return [self._published(*each) for each in zip(made, indexes, moved, strict=True)]

    def _there(self, one: _Made) -> list[dict[str, Any]]:
        """What the registry has of other platforms under the tag that never moves.

        Raises:
            PublishError: it has another image of this platform.
        """
        if not self.registry:
            return []
        repository, tag = one.plan.image, one.plan.tags.immutable
        found = self.registry.get(repository, tag)
        if not found:
            return []
        ours = one.manifests[0].descriptor
        theirs: list[dict[str, Any]] = json.loads(found.content).get("manifests", [])
        same = [d for d in theirs if oci.platform_of(d) == oci.platform_of(ours) and not oci.is_attestation(d)]
        if not theirs or any(d["digest"] != ours["digest"] for d in same):
            raise PublishError(
                f"{self.registry.reference(repository)}:{tag} is published already, with another content",
                hint="a tag of a build never moves: raise the version, or give --rebuilt for one with newer packages",
            )
        replaced = {ours["digest"]}
        return [
            d
            for d in theirs
            if d["digest"] not in replaced and d.get("annotations", {}).get(oci.REFERENCE_DIGEST) not in replaced
        ]

    def _bring(self, one: _Made, index: oci.Blob) -> None:
        """Everything of an image under its digest, and its signature."""
        if not self.registry:
            return
        repository = one.plan.image
        self.say(f"{self.registry.reference(repository)}: {one.size / 1e6:.1f} MB")
        for blob in one.blobs:
            self.registry.upload(repository, blob)
        for document in (*one.manifests, index):
            self.registry.put(repository, document.digest, document)
        if self.signer:
            self.signer.sign(f"{self.registry.reference(repository)}@{index.digest}")

    def _tag(self, repository: str, index: oci.Blob, tag: str) -> None:
        if self.registry:
            self.registry.put(repository, tag, index)
            self.say(f"{self.registry.reference(repository)}:{tag} is {index.digest}")

    def _move(self, repository: str, index: oci.Blob, tag: str) -> bool:
        """Put a moving tag, but not where it would lose a platform, whose build may only be on its way."""
        old = self.registry.get(repository, tag) if self.registry else None
        if self.registry and old and (missing := _platforms(old) - _platforms(index)):
            others = ", ".join(sorted(missing))
            self.say(f"{self.registry.reference(repository)}:{tag} stays until this build is there for {others}, too")
            return False
        self._tag(repository, index, tag)
        return True

    def _published(self, one: _Made, index: oci.Blob, moved: Sequence[str]) -> Published:
        tags = (one.plan.tags.immutable, *moved)
        self.pages.mkdir(parents=True, exist_ok=True)
        file = self.pages / f"{one.plan.image}-{one.plan.tags.immutable}.md"
        file.write_text(one.page, encoding="utf-8")
        file.with_suffix(".spdx.json").write_text(json.dumps(one.bill), encoding="utf-8")
        platforms = tuple(sorted(_platforms(index)))
        return Published(f"{self.address}/{one.plan.image}", index.digest, tags, platforms, one.size, file)


def _platforms(index: oci.Blob) -> set[str]:
    manifests = json.loads(index.content).get("manifests", [])
    return {oci.platform_of(found) for found in manifests if not oci.is_attestation(found)}
