"""Verify a published image: who signed it, that it is whole, its bill of materials, its source."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import docker.errors
import oras.container

from slurm_testbed import engine
from slurm_testbed.errors import EngineNotFoundError, PublishError
from slurm_testbed.images import Say
from slurm_testbed.images.say import to_stderr
from slurm_testbed.publish import oci
from slurm_testbed.publish.cosign import Verifier
from slurm_testbed.publish.push import SOURCE_REFERENCE
from slurm_testbed.publish.refusals import why_unpublishable
from slurm_testbed.publish.registry import Registry, host_of
from slurm_testbed.publish.sbom import PREDICATE


@dataclass(frozen=True)
class Verified:
    """An image that was verified.

    Attributes:
        reference: the image by its digest, which nobody can change: pull this.
        platforms: for which there is one.
        packages: how many its bill of materials has.
    """

    reference: str
    platforms: tuple[str, ...]
    packages: int


def verify(image: str, verifier: Verifier | None, *, unpublishable: bool = False, say: Say = to_stderr) -> Verified:
    """Verify an image in its registry, all of whose bytes are read; and the engine's copy, where it has one.

    Args:
        image: as docker pull takes it.
        verifier: checks the signature; None to leave that out.
        unpublishable: also one that must not have been published.
        say: told what holds, a line at a time.

    Raises:
        PublishError: something does not hold.

    Example:
        >>> verify("ghcr.io/me/slurm-client:24.11", Verifier("cosign.pub"))  # doctest: +SKIP
    """
    host_of(image)
    named = oras.container.Container(image)
    registry = Registry("/".join(filter(None, (named.registry, named.namespace))))
    wanted = named.digest or named.tag
    index = registry.get(named.repository, wanted)
    if not index:
        raise PublishError(f"there is no {image} in {registry.host}", hint="see its tags: is the name right?")
    reference = f"{registry.reference(named.repository)}@{index.digest}"
    say(f"{image} is {index.digest}")
    checks = _Checks(registry, named.repository, unpublishable, say)
    if verifier:
        verifier.verify(reference)
        say("signed by whom you named")
    else:
        say("its signature was not asked for")
    platforms, packages = checks.index(index)
    checks.source(index, verifier)
    checks.engines_copy(image, index.digest)
    return Verified(reference, platforms, packages)


@dataclass(frozen=True)
class _Checks:
    registry: Registry
    repository: str
    unpublishable: bool
    say: Say

    def index(self, index: oci.Blob) -> tuple[tuple[str, ...], int]:
        """Everything to which an index refers; the platforms, and how many packages are listed."""
        listed = _manifests(index, self.repository)
        images = [one for one in listed if not oci.is_attestation(one)]
        bills = {one["annotations"].get(oci.REFERENCE_DIGEST): one for one in listed if oci.is_attestation(one)}
        packages = 0
        for one in images:
            size = self._image(self._manifest(one))
            if one["digest"] not in bills:
                raise PublishError(f"{self.repository} for {oci.platform_of(one)} has no bill of materials")
            count = self._bill(self._manifest(bills[one["digest"]]), one["digest"])
            self.say(f"{oci.platform_of(one)}: whole, {size / 1e6:.1f} MB; its bill of materials has {count} packages")
            packages += count
        return tuple(oci.platform_of(one) for one in images), packages

    def _manifest(self, descriptor: dict[str, Any]) -> dict[str, Any]:
        found = self.registry.get(self.repository, descriptor["digest"])
        if not found:
            raise PublishError(f"{self.registry.host} has no {descriptor['digest']}: {self.repository} is not whole")
        content: dict[str, Any] = json.loads(found.content)
        return content

    def _image(self, manifest: dict[str, Any]) -> int:
        """An image's layers and labels; its size in bytes."""
        config = json.loads(self.registry.blob(self.repository, manifest["config"]))
        reasons = why_unpublishable(config.get("config", {}).get("Labels") or {})
        if reasons and not self.unpublishable:
            raise PublishError(f"{self.repository} should never have been published: {'; '.join(reasons)}")
        return sum(len(self.registry.blob(self.repository, layer)) for layer in manifest["layers"])

    def _bill(self, manifest: dict[str, Any], of: str) -> int:
        """How many packages the bill of materials of an image lists."""
        for layer in manifest["layers"]:
            statement = json.loads(self.registry.blob(self.repository, layer))
            subjects = {f"sha256:{subject['digest']['sha256']}" for subject in statement["subject"]}
            if statement["predicateType"] == PREDICATE and subjects == {of}:
                return len(statement["predicate"]["packages"]) - 1  # the first is the image
        raise PublishError(f"what stands beside {of} of {self.repository} is not its bill of materials")

    def source(self, index: oci.Blob, verifier: Verifier | None) -> None:
        """The source of its Slurm, where it has one."""
        named = json.loads(index.content).get("annotations", {}).get(SOURCE_REFERENCE)
        if not named:
            return
        repository, _, digest = named.partition("@")
        found = self.registry.get(repository, digest)
        if not found:
            raise PublishError(f"the source of its Slurm, {self.registry.reference(named)}, is not there")
        if verifier:
            verifier.verify(self.registry.reference(named))
        _Checks(self.registry, repository, self.unpublishable, lambda _: None).index(found)
        self.say(f"the source of its Slurm is {self.registry.reference(named)}")

    def engines_copy(self, image: str, digest: str) -> None:
        """The copy that the engine has under the same name."""
        try:
            local = engine.connect().images.get(image)
        except (EngineNotFoundError, docker.errors.ImageNotFound):
            return
        copies = {name.rpartition("@")[2] for name in local.attrs.get("RepoDigests") or []}
        if digest not in copies:
            raise PublishError(
                f"the engine's {image} is another one: {', '.join(sorted(copies)) or 'not from a registry'}",
                hint=f"docker pull {image}",
            )
        self.say("the engine has this very image")


def _manifests(index: oci.Blob, repository: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(index.content).get("manifests", [])
    if index.media_type != oci.INDEX or not found:
        raise PublishError(f"{repository} was not published by `invoke push`: it is {index.media_type}")
    return found
