"""jupyterhub_moss's spawn page in a real browser with its documentation's sample partitions, and its jobs in Slurm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from fixtures.browser import HUB, Visit
from fixtures.hub import HubStart, stop_all
from fixtures.lab import Lab, log_in
from slurm_testbed import SlurmCluster
from slurm_testbed.pytest_plugin import note_cluster
from slurm_testbed.releases import Release
from slurm_testbed.slurm import JobRecord

EXAMPLE = Path(__file__).parents[2] / "images/jupyter/examples/moss.py"
#: The partitions that the example offers, as large and as long, on nodes of 128 processors that no machine here has:
#: jobs are bound to none.
CONF = {
    "31-tracking-cgroup.conf": "ProctrackType=proctrack/linuxproc\nJobAcctGatherType=jobacct_gather/linux\n",
    "32-tasks.conf": "TaskPlugin=task/none\n",
    "80-partitions.conf": "PartitionName=partition_1 Nodes=n1 MaxTime=12:00:00\n"
    "PartitionName=partition_2 Nodes=n2 MaxTime=1:00:00\n"
    "PartitionName=partition_3 Nodes=ALL MaxTime=12:00:00\n",
}
ENV = {"SLURM_NODE_GRES": "gpu:V100-SXM2-32GB:2", "SLURM_CGROUP": "none"}
USER = "dave"


@pytest.fixture(scope="module")
def _moss(hub_start: HubStart) -> Iterator[SlurmCluster]:
    # moss's script has sbatch's --get-user-env: slurmd makes a namespace for it, and ends where it may not. It may with
    # the capabilities for cgroups.
    fragment = {"30-spawner.py": EXAMPLE.read_text()}
    with hub_start(nodes=2, cpus=128, memory=16000, cgroups=True, conf=CONF, hub_conf=fragment, env=ENV) as cluster:
        yield cluster


@pytest.fixture
def slurm(request: pytest.FixtureRequest, _moss: SlurmCluster, slurm_release: Release) -> Iterator[SlurmCluster]:
    """An idle cluster with the three partitions."""
    note_cluster(request, _moss, slurm_release)
    _moss.reset()
    yield _moss
    stop_all(_moss.hub)


@pytest.fixture
def visit(slurm: SlurmCluster, browse: Callable[[SlurmCluster], Visit]) -> Visit:
    """The spawn page, its script run."""
    visit = browse(slurm)
    log_in(visit.page, USER, slurm.hub.passwords()[USER], then="/hub/spawn")
    expect(visit.page.get_by_role("heading", name="Server Options")).to_be_visible()
    expect(visit.page.locator("#maximumCores + label")).to_have_text("Maximum: 28 cores")
    return visit


@pytest.fixture
def page(visit: Visit) -> Page:
    """The spawn page alone."""
    return visit.page


@pytest.mark.deep
@pytest.mark.row("M-01.1", "M-01.2", "M-02.1", "M-02.7")
@pytest.mark.row("M-03.1", "M-03.2", "M-03.3", "M-03.4", "M-03.5", "M-03.6")
def test_simple_tab_offers_what_the_chosen_partition_has(visit: Visit, page: Page) -> None:
    expect(page.get_by_role("tab")).to_have_text(["Simple", "Advanced"])
    expect(_offered(page, "partition_simple")).to_have_text(
        ["Partition 1 (x86_86) Partition: partition_1", "Partition 2 (ppc64le) Partition: partition_2"],
        use_inner_text=True,
    )
    expect(_offered(page, "nprocs_simple")).to_have_text(["Minimum: 1 core", "Half: 14 cores", "Maximum: 28 cores"])
    hours = [f"{hours} hours" for hours in (2, 4, 6, 8, 12)]
    expect(_offered(page, "duration")).to_have_text(["1 hour", *hours])
    expect(_offered(page, "ngpus_simple")).to_have_count(0)

    _choose(page, "4 hours")
    _choose(page, "Partition 2")

    expect(_offered(page, "nprocs_simple")).to_have_text(["Minimum: 1 core", "Half: 64 cores", "Maximum: 128 cores"])
    expect(_offered(page, "ngpus_simple")).to_have_text(["0", "1", "2"])
    expect(_offered(page, "duration")).to_have_text(["1 hour"])
    expect(page.locator("#duration1")).to_be_checked()
    visit.picture("spawn-page")


@pytest.mark.row("M-02.3", "M-02.4", "M-03.7", "M-03.8", "M-03.9")
def test_advanced_tab_adds_the_hidden_partition_nodes_and_gpus_within_their_bounds(page: Page) -> None:
    page.get_by_role("tab", name="Advanced").click()
    partition = page.get_by_label("Partition (--partition)")
    bounds = {}
    for name in ("partition_1", "partition_2", "partition_3"):
        partition.select_option(name)
        bounds[name] = [page.locator(f"#{field}").get_attribute("max") for field in ("nprocs", "nnodes", "ngpus")]

    assert bounds == {
        "partition_1": ["28", "1", "0"],
        "partition_2": ["128", "1", "2"],
        "partition_3": ["28", "2", "0"],
    }
    expect(page.locator("#ngpus")).to_be_disabled()
    for label, too_many in (("Number of CPUs", "29"), ("Number of nodes", "3")):
        field = page.get_by_label(label)
        field.fill(too_many)
        page.get_by_role("button", name="Start").click()
        assert "must be less than or equal to" in field.evaluate("field => field.validationMessage")
        assert page.url == f"{HUB.url}/hub/spawn"
        field.fill("1")


@pytest.mark.row("M-02.5", "M-03.10")
def test_duration_over_the_partitions_limit_is_refused_on_the_page(slurm: SlurmCluster, page: Page) -> None:
    page.get_by_role("tab", name="Advanced").click()
    page.get_by_label("Partition (--partition)").select_option("partition_2")
    page.locator("#runtime").fill("1:00:01")
    page.get_by_role("button", name="Start").click()

    expect(page.get_by_text("the job's time is 1:00:01, at most 1:00:00")).to_be_visible()
    assert slurm.queue() == []


@pytest.mark.row("H-16.2", "M-02.2", "M-05.1", "M-05.2", "M-05.3", "M-05.4")
def test_start_on_the_simple_tab_submits_exactly_what_is_chosen(slurm: SlurmCluster, page: Page) -> None:
    _choose(page, "Partition 2")
    _choose(page, "Half: 64 cores")
    _offered(page, "ngpus_simple").nth(1).click()
    _choose(page, "1 hour")
    page.get_by_role("button", name="Start").click()

    assert _chosen(_submitted(slurm)) == {
        "Partition": "partition_2",
        "NumNodes": "1",
        "CPUs/Task": "64",
        "TimeLimit": "01:00:00",
        "TresPerNode": "gres/gpu:V100-SXM2-32GB:1",
    }
    lab = Lab(page)
    lab.wait()
    lab.new_notebook()
    assert lab.run_cell('import os; print(os.environ["CUDA_VISIBLE_DEVICES"])').inner_text().strip() in {"0", "1"}


@pytest.mark.row("M-05.1", "M-05.2", "M-05.4")
def test_start_on_the_advanced_tab_submits_exactly_what_is_chosen(slurm: SlurmCluster, page: Page) -> None:
    page.get_by_role("tab", name="Advanced").click()
    page.get_by_label("Partition (--partition)").select_option("partition_3")
    page.get_by_label("Number of CPUs").fill("3")
    page.get_by_label("Number of nodes").fill("2")
    page.locator("#runtime").fill("2:30:00")
    page.get_by_role("button", name="Start").click()

    expected = {"Partition": "partition_3", "NumNodes": "2", "CPUs/Task": "3", "TimeLimit": "02:30:00"}
    assert _chosen(_submitted(slurm)) == expected


def _offered(page: Page, name: str) -> Locator:
    """The buttons of a row that are seen: labels, whose inputs the page does not show."""
    return page.locator(f'input[name="{name}"] + label:visible')


def _choose(page: Page, text: str) -> None:
    page.locator(".radio-toolbar label:visible").filter(has_text=text).click()


def _submitted(slurm: SlurmCluster) -> JobRecord:
    """The one job that there is, when it runs."""
    (job,) = slurm.wait_until(slurm.queue, "a job", deadline=60)
    return slurm.job(job).wait(until={"RUNNING"})


def _chosen(record: JobRecord) -> dict[str, str]:
    fields = ("Partition", "NumNodes", "CPUs/Task", "TimeLimit", "TresPerNode")
    return {name: record.fields[name] for name in fields if name in record.fields}
