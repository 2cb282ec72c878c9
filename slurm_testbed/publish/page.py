"""The page of an image: what it is, how to get and verify it, and what is in it under which licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from slurm_testbed.engine import LABEL
from slurm_testbed.publish.contents import Package

_OCI = "org.opencontainers.image"
_KINDS = {"deb": "Debian's packages", "generic": "Slurm", "npm": "npm's packages", "pypi": "Python's packages"}


def page(
    reference: str,
    digest: str,
    tags: Sequence[str],
    platform: str,
    size: int,
    labels: Mapping[str, str],
    packages: Sequence[Package],
) -> str:
    """The page of an image, in Markdown.

    Args:
        reference: the image as docker pull takes it, without a tag.
        digest: of its manifest.
        tags: its tags.
        platform: as `linux/amd64`.
        size: compressed, in bytes.
        labels: its labels.
        packages: what is in it.

    Example:
        >>> print(page("ghcr.io/me/x", "sha256:0", ["1"], "linux/amd64", 2_000_000, {}, []).splitlines()[0])
        # ghcr.io/me/x
    """
    facts = {
        "tags": ", ".join(f"`{tag}`" for tag in tags),
        "platform": platform,
        "manifest": f"`{digest}`",
        "compressed": f"{size / 1e6:.1f} MB",
        "Slurm": labels.get(f"{LABEL}.release"),
        "SchedMD's support": f"until {labels[f'{LABEL}.support-end']}" if f"{LABEL}.support-end" in labels else None,
        "source of Slurm": labels.get(f"{LABEL}.source"),
        "base": labels.get(f"{_OCI}.base.name"),
        "revision": labels.get(f"{_OCI}.revision"),
        "licences": labels.get(f"{_OCI}.licenses"),
    }
    lines = [
        f"# {reference}",
        "",
        f"{labels.get(f'{_OCI}.description', 'An image of Slurm Testbed')}.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items() if value),
        "",
        "```",
        f"docker pull {reference}:{tags[0]}",
        f"invoke verify {reference}:{tags[0]} --key cosign.pub",
        f"docker buildx imagetools inspect {reference}:{tags[0]} --format '{{{{ json .SBOM }}}}'",
        "```",
        "",
        "Licence texts are in its bill of materials, and in the image under /usr/share/doc.",
    ]
    count = Counter(package.kind for package in packages)
    for kind, title in _KINDS.items():
        if count[kind]:
            lines += [
                "",
                f"## {title} ({count[kind]})",
                "",
                "| name | version | licence | built from |",
                "|---|---|---|---|",
            ]
            lines += [
                f"| {p.name} | {p.version} | {p.licence.expression} | {p.source} |" for p in packages if p.kind == kind
            ]
    return "\n".join(lines) + "\n"
