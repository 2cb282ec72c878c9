"""What mkdocs does not do by itself: pages of files outside docs/, and links to files that are no pages.

The files stay where people look for them in the repository, and their links work there; here each link is turned into
that of the page, or into one to the source. A link to nothing is a warning, which a strict build does not survive.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]

#: Files outside docs/ that are pages, by the page's name.
PAGES = {
    "index.md": "README.md",
    "compose.md": "compose/README.md",
    "slurmspawner.md": "images/jupyter/slurmspawner/README.md",
    "app-sessions.md": "images/app-sessions/app-sessions/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}

_FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_LOG = logging.getLogger("mkdocs.hooks.links")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose files stand elsewhere."""
    for uri, source in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of the repository lead to pages of the site, or to the source."""
    source = PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def linked(found: re.Match[str]) -> str:
        target, _, anchor = found["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        uri = uri_of(path)
        if files.get_file_from_path(uri):
            uri = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
            return f"{found['picture']}[{found['text']}]({uri}{'#' if anchor else ''}{anchor})"
        if not (ROOT / path).exists():
            _LOG.warning("%s links to %s, which is not there", source, found["target"])
        return source_link(found["text"], path, config.repo_url or "")

    # What stands in a fence is code, and no link.
    parts, at = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(linked, markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, _LINK.sub(linked, markdown[at:])])


def uri_of(path: str) -> str:
    """The page's name of a file of the repository.

    Example:
        >>> uri_of("README.md"), uri_of("docs/hub.md"), uri_of("inv")
        ('index.md', 'hub.md', 'inv')
    """
    for uri, source in PAGES.items():
        if source == path:
            return uri
    return path.removeprefix("docs/")


def source_link(text: str, path: str, repository: str) -> str:
    """A link to a file of the repository; its text where nobody said where that is.

    Example:
        >>> source_link("the tests", "tests/hub", "https://example.org/hpc/slurm-testbed/")
        '[the tests](https://example.org/hpc/slurm-testbed/blob/HEAD/tests/hub)'
        >>> source_link("the tests", "tests/hub", "")
        'the tests'
    """
    return f"[{text}]({repository.rstrip('/')}/blob/HEAD/{path})" if repository else text
