"""Descriptors, manifests and indexes, as the OCI image specification has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm_testbed.publish.streams import digest_of

# https://github.com/opencontainers/image-spec/blob/main/media-types.md
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
# https://docs.docker.com/build/metadata/attestations/attestation-storage/
IN_TOTO = "application/vnd.in-toto+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"
REFERENCE_TYPE = "vnd.docker.reference.type"
REFERENCE_DIGEST = "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"


@dataclass(frozen=True)
class Blob:
    """A blob and where it is: in a file, or here.

    Attributes:
        media_type: its type.
        digest: `sha256:` and 64 hexadecimal digits.
        size: in bytes.
        path: the file with it; None for `content`.
        content: its bytes.
        extra: further fields of its descriptor: platform, annotations.
    """

    media_type: str
    digest: str
    size: int
    path: Path | None = None
    content: bytes = b""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def descriptor(self) -> dict[str, Any]:
        """How another document refers to it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, **self.extra}


@dataclass(frozen=True)
class Image:
    """An image as a registry takes it: one platform with its attestations.

    Attributes:
        manifests: descriptors and documents, those of the platform first.
        blobs: what they refer to.
    """

    manifests: Sequence[Blob]
    blobs: Sequence[Blob]

    @property
    def platform(self) -> str:
        """The platform, as `linux/amd64`."""
        return platform_of(self.manifests[0].descriptor)


def document(media_type: str, content: Mapping[str, Any], **extra: Any) -> Blob:
    """A JSON document as a blob; the same content has the same digest.

    Args:
        media_type: its type.
        content: what it says.
        extra: further fields of its descriptor.

    Example:
        >>> document(INDEX, {"manifests": []}).size
        16
    """
    text = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
    return Blob(media_type, digest_of(text), len(text), content=text, extra=extra)


def manifest(config: Blob, layers: Sequence[Blob], **extra: Any) -> Blob:
    """The manifest of an image.

    Args:
        config: its configuration.
        layers: its layers, the lowest first.
        extra: further fields of its descriptor.
    """
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor,
        "layers": [layer.descriptor for layer in layers],
    }
    return document(MANIFEST, content, **extra)


def index(descriptors: Iterable[Mapping[str, Any]], annotations: Mapping[str, str]) -> Blob:
    """The index of the manifests of several platforms, sorted, so that its digest does not depend on who came first.

    Args:
        descriptors: of the manifests.
        annotations: what the index says of itself.
    """
    ordered = sorted(descriptors, key=lambda one: (is_attestation(one), platform_of(one), one["digest"]))
    content = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": ordered,
        "annotations": dict(annotations),
    }
    return document(INDEX, content)


def platform_of(descriptor: Mapping[str, Any]) -> str:
    """The platform of a descriptor, as `linux/amd64`; empty where it has none.

    Example:
        >>> platform_of({"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}})
        'linux/arm64/v8'
    """
    platform = descriptor.get("platform", {})
    return "/".join(filter(None, (platform.get(key) for key in ("os", "architecture", "variant"))))


def is_attestation(descriptor: Mapping[str, Any]) -> bool:
    """Whether a manifest of an index is no image, but what is said of one."""
    return bool(descriptor.get("annotations", {}).get(REFERENCE_TYPE) == ATTESTATION)
