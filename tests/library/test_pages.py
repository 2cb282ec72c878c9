"""The documentation does what it says: pages are walked, commands are those that there are, the site is whole."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.exceptions import ParseError
from invoke.parser import Parser

import slurm_testbed
import tasks
from fixtures.pages import Fence, fences, try_page, unseen
from slurm_testbed import doctor, engine, faults
from slurm_testbed.releases import Release

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "compose/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
#: Where the source of the site stands.
HOME = "https://example.org/hpc/slurm-testbed"
#: What calls a task, in a fence.
CALL = re.compile(r"(?:^|\$\(|&& )(?:\./inv|invoke) (?P<arguments>[^#)&|\n]*)", re.MULTILINE)


TUTORIAL = ROOT / "docs/tutorial.md"
#: Those with commands that are run here; the tutorial's need an environment of their own.
WALKED = [page for page in PAGES if page != TUTORIAL and any(fence.mark == "run" for fence in fences(page))]


def name_of(page: Path) -> str:
    """A page in a test's id."""
    return page.relative_to(ROOT).with_suffix("").as_posix()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a reader, whose clusters are removed."""
    owner = f"{engine.owner()}/{uuid.uuid4().hex}"
    name = f"reader-{uuid.uuid4().hex[:8]}"
    yield {"SLURM_TESTBED_UP_OWNER": owner, "SLURM_TESTBED_OWNER": owner, "COMPOSE_PROJECT_NAME": name}
    engine.sweep(engine.connect(), owned_by=owner)


def build_site(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout as `invoke docs` does."""
    argv = [Path(sys.executable).parent / "mkdocs", "build", "--strict", "--site-dir", folder]
    env = {"PATH": "/usr/bin:/bin", "SLURM_TESTBED_REPOSITORY_URL": HOME, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation's site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build_site(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.deep
def test_tutorial_leads_from_an_empty_folder_to_jobs(
    reader: dict[str, str], own_repository: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wheels = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    env = {**reader, "PIP_FIND_LINKS": str(wheels), "REPOSITORY": own_repository, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    try_page(TUTORIAL, tmp_path, env)


@pytest.mark.deep
@pytest.mark.parametrize("page", WALKED, ids=name_of)
def test_page_does_what_it_says(page: Path, reader: dict[str, str], slurm_release: Release, tmp_path: Path) -> None:
    for name in ("compose", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    options = f"--slurm-release={slurm_release.version} -p no:cacheprovider"
    here = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    try_page(page, tmp_path, {**reader, "PATH": here, "PYTEST_ADDOPTS": options, "VERSION": slurm_release.version})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tasks_of_a_page_are_there_with_their_options(page: Path) -> None:
    contexts = tasks.ns.to_contexts()
    calls = [found["arguments"] for fence in fences(page) for found in CALL.finditer(fence.text)]
    calls += [
        found["arguments"]
        for found in CALL.finditer("\n".join(re.findall(r"`((?:\./inv|invoke) [^`]*)`", page.read_text())))
    ]
    wrong = []

    for call in calls:
        argv = shlex.split(call.replace("…", ""))
        argv = argv[: argv.index("--")] if "--" in argv else argv
        if not argv or argv[0].startswith(("-", "TASK")):
            continue
        try:
            Parser(contexts=contexts, ignore_unknown=False).parse_argv(argv)
        except ParseError as error:
            wrong.append(f"{call.strip()}: {error}")

    assert wrong == [], f"{page.name} names what is not there"


def test_every_fault_and_every_cause_is_documented() -> None:
    page = (ROOT / "docs/faults.md").read_text()
    made, texts = page.split("## Texts, and what they mean")

    for fault in faults.catalogue():
        assert f"| {fault.name} | {fault.summary} | `invoke reproduce {fault.name}" in made, (
            f"{fault.name} is not described"
        )
    for cause in doctor.CAUSES:
        assert f"| {cause.name} |" in texts, f"what {cause.name} shows is not described"
    names = re.findall(r"^\| ([a-z-]+-[a-z-]+) \|", texts, re.MULTILINE)
    assert set(names) == {cause.name for cause in doctor.CAUSES}, "a cause that is no longer there is described"


def test_texts_of_the_faults_page_are_recognised() -> None:
    """What the page says that Slurm says is what `invoke doctor` names."""
    rows = re.findall(
        r"^\| ([a-z-]+) \| (.*?) \|", (ROOT / "docs/faults.md").read_text().split("## Texts")[1], re.MULTILINE
    )

    for name, seen in rows[1:] if rows[0][0] == "name" else rows:
        for text in re.findall(r"`([^`]+)`", seen):
            said = text.replace("got … need …", "got 9999 need 8888")
            assert name in doctor.diagnose_text(said).names, f"{name}: the doctor does not know {text!r}"


def test_site_is_whole_and_asks_nobody_else(site: Path) -> None:
    pages = {path.parent.name for path in site.glob("*/index.html")}

    assert {"tutorial", "api", "support", "comparison", "compose", "contributing"} <= pages
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=[\"']?(https?://[^\"' >]+)", page.read_text()
        )
        assert [url for url in loaded if not url.startswith(HOME)] == [], f"{page} loads from elsewhere"


def test_api_has_the_examples_and_the_types_of_public_names(site: Path) -> None:
    page = (site / "api/index.html").read_text()

    for name in slurm_testbed.__all__:
        assert re.search(rf'id="slurm_testbed[\w.]*\.{name}"', page), f"the API has no {name}"


def test_site_with_a_link_to_nothing_is_not_built(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    ignored = shutil.ignore_patterns(".git", ".venv", ".*cache", "build", ".results", "__pycache__")
    shutil.copytree(ROOT, root, ignore=ignored, symlinks=True)
    with (root / "docs/support.md").open("a") as page:
        page.write("\n[gone](../slurm_testbed/gone.py)\n")

    done = build_site(root, tmp_path / "site")

    assert done.returncode == 1, done.stderr
    assert "docs/support.md links to ../slurm_testbed/gone.py, which is not there" in done.stderr, done.stderr


def test_links_to_what_is_no_page_lead_to_the_source(site: Path) -> None:
    assert f'href="{HOME}/blob/HEAD/tests/clients"' in (site / "clients/index.html").read_text()


def test_page_that_does_not_show_what_it_says_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "<!-- file: a.txt -->\n```text\nyes\n```\n\n<!-- run -->\n```sh\ncat a.txt\n```\n\n"
    text += "<!-- shows -->\n```text\nYES\n```\n"

    page.write_text(text.replace("YES", "y…"))
    try_page(page, tmp_path, {})
    page.write_text(text)
    with pytest.raises(AssertionError, match="no such line came"):
        try_page(page, tmp_path, {})
    page.write_text(text.replace("cat a.txt", "cat b.txt"))
    with pytest.raises(AssertionError, match="ended with 1"):
        try_page(page, tmp_path, {})


def test_fence_without_a_mark_is_no_command(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```sh\nfalse\n```\n")

    assert fences(tmp_path / "page.md") == [Fence("", "", "sh", "false\n")]
    assert unseen(["n[1-2] …"], ["n[1-2] idle"]) is None
