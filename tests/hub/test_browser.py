"""What a person sees: the hub's pages and JupyterLab in a real browser, and what becomes of it in Slurm."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from fixtures.browser import HUB, Visit
from fixtures.hub import spawn
from fixtures.lab import Lab, log_in
from slurm_testbed import SlurmCluster
from slurm_testbed.slurm import Job

USER = "carol"
CELL = """import os, socket
print(os.getuid(), socket.gethostname())
print(os.environ["SLURM_JOB_ID"], os.path.ismount("/shared"))"""


@pytest.fixture
def slurm(hub_cluster: SlurmCluster) -> SlurmCluster:
    """An idle cluster with a hub, whose user has never been in JupyterLab."""
    hub_cluster.run(["rm", "-rf", f"/home/{USER}/.jupyter", f"/shared/notebooks/{USER}/Untitled.ipynb"], host="client")
    return hub_cluster


@pytest.fixture
def visit(slurm: SlurmCluster, browse: Callable[[SlurmCluster], Visit]) -> Visit:
    """An empty page of a browser."""
    return browse(slurm)


@pytest.mark.parametrize("user", [USER, "nobody-here"])
def test_who_may_not_log_in_is_told_so_on_the_page(slurm: SlurmCluster, visit: Visit, user: str) -> None:
    log_in(visit.page, user, "wrong")

    expect(visit.page.get_by_text("Invalid username or password")).to_be_visible()
    expect(visit.page.get_by_label("Username")).to_have_value(user)


@pytest.mark.row("H-09.1", "H-09.2", "H-09.3", "H-09.4", "H-09.5", "H-09.6")
def test_walk_from_login_to_a_cell_and_back(slurm: SlurmCluster, visit: Visit) -> None:
    page, lab = visit.page, Lab(visit.page)
    page.goto("/")
    expect(page).to_have_url(f"{HUB.url}/hub/login?next=%2Fhub%2F")
    visit.picture("login")

    log_in(page, USER, slurm.hub.passwords()[USER])
    page.get_by_role("button", name="Start My Server").click()
    lab.wait()
    (job,) = _jobs(slurm)
    lab.new_notebook()
    output = lab.run_cell(CELL)
    record = job.record()
    expect(output).to_have_text(f"1002 {record.nodes} {job.id} True")
    visit.picture("lab")

    page.goto("/hub/home")
    page.get_by_role("button", name="Stop My Server").click()
    expect(page.get_by_role("button", name="Start My Server")).to_be_visible()

    assert record.fields["UserId"] == f"{USER}(1002)"
    assert job.wait().state == "CANCELLED"
    assert slurm.queue() == []


@pytest.mark.row("C-13.1", "C-13.2", "C-13.3", "C-13.4", "C-13.5")
def test_job_is_submitted_in_a_terminal_and_held_released_and_cancelled_in_the_table(
    slurm: SlurmCluster, visit: Visit
) -> None:
    spawn(slurm, USER)
    log_in(visit.page, USER, slurm.hub.passwords()[USER], then=f"/user/{USER}/lab")
    lab = Lab(visit.page)
    lab.wait()
    lab.hide_files()
    terminal = lab.terminal()

    assert terminal.run("sinfo").split() == slurm.run(["sinfo"]).stdout.split()
    visit.picture("terminal")
    assert re.findall(r"NodeName=(\w+)", terminal.run("scontrol show nodes")) == ["n1", "n2"]
    submitted = terminal.run("sbatch --begin=now+1hour --job-name=later --wrap hostname")
    job = slurm.job(int(submitted.removeprefix("Submitted batch job ")))
    assert job.record().fields["UserId"] == f"{USER}(1002)"

    lab.launch("Slurm Dashboard")
    table = visit.page.locator(".jp-SlurmWidget")
    row = table.locator(f'[role="row"][row-id="{job.id}"]')
    expect(_cell(row, "ST")).to_have_text("PENDING")
    expect(_cell(row, "NAME")).to_have_text("later")
    visit.picture("jupyterlab-slurm")
    _act(row, table, "Pause")
    slurm.wait_until(lambda: job.record().reason == "JobHeldUser", "the job to be held", state=lambda: _seen(job))
    _act(row, table, "Resume")
    slurm.wait_until(lambda: job.record().reason != "JobHeldUser", "the job to be released", state=lambda: _seen(job))
    _act(row, table, "Cancel")
    assert job.wait().state == "CANCELLED"
    expect(row).to_have_count(0)


def _jobs(slurm: SlurmCluster) -> list[Job]:
    listed = slurm.run(["squeue", "--noheader", f"--user={USER}", "--format=%A"]).stdout
    return [slurm.job(int(line)) for line in listed.split()]


def _cell(row: Locator, column: str) -> Locator:
    return row.locator(f'[col-id="{column}"]')


def _act(row: Locator, table: Locator, action: str) -> None:
    """Choose a job and press a button, as soon as the table knows that the job allows it."""
    checkbox = row.get_by_role("checkbox")
    checkbox.check()
    table.get_by_role("button", name=action, exact=False).click()


def _seen(job: Job) -> str:
    record = job.record()
    return f"{record.state} ({record.reason})"
