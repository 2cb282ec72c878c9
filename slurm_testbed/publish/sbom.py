"""The bill of materials of an image, as SPDX; and as an attestation that stands beside it in its index."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from spdx_tools.spdx.model import (
    Actor,
    ActorType,
    Checksum,
    ChecksumAlgorithm,
    CreationInfo,
    Document,
    ExternalPackageRef,
    ExternalPackageRefCategory,
    ExtractedLicensingInfo,
    PackagePurpose,
    Relationship,
    RelationshipType,
    SpdxNoAssertion,
)
from spdx_tools.spdx.model import Package as SpdxPackage
from spdx_tools.spdx.writer.json.json_writer import write_document_to_stream

from slurm_testbed.errors import PublishError
from slurm_testbed.publish import oci
from slurm_testbed.publish.contents import Package
from slurm_testbed.publish.licences import spdx_licensing

PREDICATE = "https://spdx.dev/Document"
# For who has no site of its own: https://spdx.github.io/spdx-spec/v2.3/document-creation-information/
_NAMESPACE = "https://spdx.org/spdxdocs"
_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-image"


def sbom(name: str, manifest: str, created: datetime, version: str, packages: Sequence[Package]) -> dict[str, Any]:
    """The bill of materials of an image, valid SPDX 2.3; the same image has the same one.

    Args:
        name: the image, as people call it.
        manifest: the digest of its manifest.
        created: when the image was made.
        version: the version of Slurm Testbed.
        packages: what is in it.

    Raises:
        PublishError: it is not valid.

    Example:
        >>> made = sbom("slurm-client", "sha256:" + "0" * 64, datetime(2026, 11, 1), "0.1.0", [])
        >>> made["spdxVersion"], made["packages"][0]["name"]
        ('SPDX-2.3', 'slurm-client')
    """
    image = SpdxPackage(
        _IMAGE,
        name,
        SpdxNoAssertion(),
        version=manifest,
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, manifest.removeprefix("sha256:"))],
        primary_package_purpose=PackagePurpose.CONTAINER,
        license_declared=SpdxNoAssertion(),
    )
    parts = [_package(number, package) for number, package in enumerate(packages)]
    texts = dict(text for package in packages for text in package.licence.texts)
    document = Document(
        CreationInfo(
            "SPDX-2.3",
            _DOCUMENT,
            name,
            f"{_NAMESPACE}/{name}-{manifest.removeprefix('sha256:')}",
            [Actor(ActorType.TOOL, f"slurm-testbed-{version}")],
            created.replace(microsecond=0),
        ),
        packages=[image, *parts],
        relationships=[
            Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _IMAGE),
            *(Relationship(_IMAGE, RelationshipType.CONTAINS, part.spdx_id) for part in parts),
        ],
        extracted_licensing_info=[ExtractedLicensingInfo(key, text) for key, text in sorted(texts.items())],
    )
    stream = io.StringIO()
    try:
        write_document_to_stream(document, stream, drop_duplicates=False)
    except ValueError as error:
        raise PublishError(f"the bill of materials of {name} is not valid SPDX: {str(error)[:600]}") from None
    made: dict[str, Any] = json.loads(stream.getvalue())
    return made


def _package(number: int, package: Package) -> SpdxPackage:
    licence = spdx_licensing().parse(package.licence.expression)
    person = re.sub(r"\s*<[^>]*>", "", package.supplier).strip()
    return SpdxPackage(
        f"SPDXRef-{package.kind}-{number}",
        package.name,
        SpdxNoAssertion(),
        version=package.version,
        supplier=Actor(ActorType.ORGANIZATION, person) if person else SpdxNoAssertion(),
        files_analyzed=False,
        license_concluded=SpdxNoAssertion(),
        license_declared=licence,
        copyright_text=SpdxNoAssertion(),
        source_info=f"built from {package.source}" if package.source else None,
        external_references=[ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", package.purl)],
    )


def attestation(name: str, of: oci.Blob, bill: dict[str, Any]) -> tuple[oci.Blob, list[oci.Blob]]:
    """The bill of materials as BuildKit attaches it, so that `docker buildx imagetools inspect` shows it.

    Args:
        name: the image, as people call it.
        of: its manifest.
        bill: the bill of materials.

    Returns:
        The manifest of the attestation, and the blobs to which it refers.
    """
    statement = oci.document(
        oci.IN_TOTO,
        {
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": PREDICATE,
            "subject": [{"name": name, "digest": {"sha256": of.digest.removeprefix("sha256:")}}],
            "predicate": bill,
        },
        annotations={oci.PREDICATE_TYPE: PREDICATE},
    )
    config = oci.document(
        oci.CONFIG,
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [statement.digest]},
        },
    )
    made = oci.manifest(
        config,
        [statement],
        platform={"architecture": "unknown", "os": "unknown"},
        annotations={oci.REFERENCE_TYPE: oci.ATTESTATION, oci.REFERENCE_DIGEST: of.digest},
    )
    return made, [config, statement]
