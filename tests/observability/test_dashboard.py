"""The dashboard in a browser: nodes and jobs as Slurm has them, without a word of ours in between."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from fixtures.browser import DASHBOARD, Visit
from slurm_testbed import SlurmCluster

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep

WORK = "import time; held = bytearray(b'x') * (300 << 20); end = time.time() + 600\nwhile time.time() < end: pass"


def sign_in(visit: Visit, token: str) -> None:
    visit.page.goto("/")
    visit.page.get_by_label("Token").fill(token)
    visit.page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def visit(observed: SlurmCluster, browse: Callable[..., Visit]) -> Visit:
    """The dashboard, signed in."""
    made = browse(observed, DASHBOARD)
    sign_in(made, observed.observability.token("reader"))
    expect(made.page.get_by_role("button", name="Sign out")).to_be_visible()
    made.console.clear()  # the page asks first whether it is signed in: 401
    return made


def row(visit: Visit, job: int) -> Locator:
    """The row of a job in the queue."""
    return visit.page.get_by_role("row").filter(has=visit.page.get_by_role("link", name=str(job), exact=True))


@pytest.mark.row("H-14.2")
def test_queue_is_squeues(observed: SlurmCluster, visit: Visit) -> None:
    running = observed.sbatch(wrap=f'python3 -c "{WORK}"', mem="500M", job_name="burn", nodelist="n1")
    waiting = observed.sbatch(wrap="true", job_name="wide", nodes=2, exclusive=True, user="bob")
    over = observed.sbatch(wrap="exit 3", job_name="short", nodelist="n2", mem="50M")
    over.wait()
    running.wait(until={"RUNNING"})

    lines = observed.run(["squeue", "--noheader", "--format=%A|%j|%u|%T|%P|%N"]).stdout.splitlines()
    told = {int(line.split("|")[0]): line.split("|")[1:] for line in lines}
    assert set(told) == {running.id, waiting.id}
    for job, (name, user, state, partition, nodes) in told.items():
        for word in (name, user, state.lower(), partition, nodes):
            expect(row(visit, job)).to_contain_text(word)
    expect(row(visit, waiting.id)).to_contain_text(waiting.record().reason)
    expect(row(visit, over.id)).to_contain_text("failed")
    # What it uses comes with the agent's samples, without the page being loaded anew.
    expect(row(visit, running.id)).to_contain_text(re.compile(r"\d %.*3\d\d MiB"))
    visit.picture("dashboard")

    row(visit, running.id).get_by_role("link", name=str(running.id), exact=True).click()
    expect(visit.page.get_by_role("heading", name=f"Job {running.id}")).to_be_visible()
    expect(visit.page.get_by_text(re.compile(rf"/job_{running.id}|/s[0-9A-Z]{{13}}")).first).to_be_visible()
    expect(visit.page.get_by_text("Nothing has been read yet.")).to_have_count(0)
    visit.picture("dashboard-job")
    running.cancel()
    expect(visit.page.locator("main .title")).to_contain_text("cancelled")
    assert visit.console == []


@pytest.mark.row("H-14.1")
def test_nodes_are_sinfos(observed: SlurmCluster, visit: Visit) -> None:
    page = visit.page
    page.get_by_role("link", name="Nodes").click()
    job = observed.sbatch(wrap="sleep 600", nodelist="n1", mem="100M")
    job.wait(until={"RUNNING"})

    expect(page.locator("section.node")).to_have_count(len(observed.nodes()))
    for name, node in observed.nodes().items():
        card = page.get_by_role("region", name=name)
        expect(card).to_contain_text(node["State"].lower().replace("+", ", "), ignore_case=True)
        expect(
            card.get_by_role("img", name=re.compile(rf"^allocated: {node['CPUAlloc']} of {node['CPUTot']} CPUs"))
        ).to_be_visible()
    expect(page.get_by_role("region", name="n1")).to_contain_text(str(job.id))
    observed.run(["scontrol", "update", "nodename=n2", "state=drain", "reason=a test"])
    expect(page.get_by_role("region", name="n2")).to_contain_text("drain", ignore_case=True)
    visit.picture("dashboard-nodes")
    assert visit.console == []


def test_wrong_token_is_refused_in_words(observed: SlurmCluster, browse: Callable[..., Visit]) -> None:
    visit = browse(observed, DASHBOARD)

    sign_in(visit, "wrong")

    expect(visit.page.get_by_role("alert").filter(has_text="token")).to_be_visible()
    expect(visit.page.get_by_label("Token")).to_be_visible()
