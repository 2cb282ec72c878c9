"""The pytest plugin: a running cluster as the fixture `slurm`, for every release that is asked for."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TypeAlias, cast

import pytest

from slurm_testbed import engine, pytest_on_path
from slurm_testbed.compose import SlurmCluster
from slurm_testbed.container import SlurmContainer
from slurm_testbed.errors import SlurmTestbedError, UsageError
from slurm_testbed.evidence import collect, gathered
from slurm_testbed.keys import ClusterKeys
from slurm_testbed.kubernetes import SlurmOnKubernetes
from slurm_testbed.on_path import commands_on_path
from slurm_testbed.releases import Release, Releases
from slurm_testbed.share import this_python
from slurm_testbed.slurm import Slurm

Cluster: TypeAlias = SlurmContainer | SlurmCluster | SlurmOnKubernetes

_CLUSTER = pytest.StashKey[Slurm]()
_ENDED = pytest.StashKey[list[tuple[str, str]]]()
#: Names an NFS export that the engine's host reaches.
NFS_VARIABLE = "SHARED_NFS"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options `--slurm-release`, `--slurm-on` and `--slurm-on-path`."""
    group = parser.getgroup("slurm", "Slurm Testbed")
    group.addoption(
        "--slurm-release",
        default="",
        metavar="LIST",
        help="releases on which tests with the fixture slurm run, e.g. 22.05,24.11; the default one if not given",
    )
    group.addoption(
        "--slurm-smoke",
        default="",
        metavar="LIST",
        help="further releases, on which only the tests with the marker smoke run",
    )
    group.addoption(
        "--slurm-on",
        default="single",
        metavar="LIST",
        help="what carries the clusters: single (one container), cluster (a container for each daemon and node), "
        "kubernetes (a pod for each, where KUBECONFIG says), or several of them",
    )
    group.addoption(
        "--slurm-on-path",
        action="store_true",
        help="put sbatch, squeue, sacct and the others on the PATH of the tests, for suites that call them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and see which releases and substrates are asked for."""
    config.addinivalue_line("markers", "smoke: what runs also on the releases of --slurm-smoke")
    config.addinivalue_line(
        "markers",
        "requires(ability, ...): what the Slurm release must be able to do, and the engine's host must have: "
        "cgroup_v1, cgroup_v2, nfs, kubernetes; or what must carry the cluster: containers",
    )
    known = Releases.load()
    config.stash[_ABILITIES] = {"nfs", "kubernetes", "containers"}.union(*(one.abilities for one in known.all))
    try:
        config.stash[_RELEASES] = [known.find(name) for name in _names(config, "slurm_release")] or [known.find(None)]
        smoke = _names(config, "slurm_smoke")
        config.stash[_SMOKE] = [one for one in map(known.find, smoke) if one not in config.stash[_RELEASES]]
        config.stash[_SUBSTRATES] = _substrates(config)
    except SlurmTestbedError as error:
        raise pytest.UsageError(str(error)) from None
    if config.getoption("slurm_on_path"):
        config.pluginmanager.register(pytest_on_path)


_RELEASES = pytest.StashKey[list[Release]]()
_SMOKE = pytest.StashKey[list[Release]]()
_SUBSTRATES = pytest.StashKey[list[str]]()
_ABILITIES = pytest.StashKey[set[str]]()
#: What starts a cluster, by the name of what carries it.
SUBSTRATES: Mapping[str, Callable[..., Cluster]] = {
    "single": SlurmContainer,
    "cluster": SlurmCluster,
    "kubernetes": SlurmOnKubernetes,
}


def _names(config: pytest.Config, option: str) -> list[str]:
    return [name for name in map(str.strip, config.getoption(option).split(",")) if name]


def _substrates(config: pytest.Config) -> list[str]:
    names = _names(config, "slurm_on") or ["single"]
    for name in names:
        if name not in SUBSTRATES:
            raise UsageError(f"--slurm-on {name} carries no cluster", hint=f"there are {', '.join(SUBSTRATES)}")
    if "kubernetes" in names and config.getoption("slurm_on_path"):
        raise UsageError("--slurm-on-path has no kubernetes: jobs in pods do not see the folders of a suite")
    return names


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that uses a cluster once per release that was asked for; with `--slurm-on-path` all do."""
    if "slurm_release" in metafunc.fixturenames:
        releases = metafunc.config.stash[_RELEASES]
        if metafunc.definition.get_closest_marker("smoke"):
            releases = releases + metafunc.config.stash[_SMOKE]
        ids = [release.minor for release in releases]
        metafunc.parametrize("slurm_release", releases, ids=ids, indirect=True, scope="session")
    if "slurm_on" in metafunc.fixturenames:
        substrates = metafunc.config.stash[_SUBSTRATES]
        if len(substrates) > 1:
            metafunc.parametrize("slurm_on", substrates, indirect=True, scope="session")


@pytest.fixture(scope="session")
def slurm_release(request: pytest.FixtureRequest) -> Release:
    """The release of this run of the test."""
    # What pytest runs once only, as unittest's tests and doctests, has the first release.
    return cast(Release, getattr(request, "param", request.config.stash[_RELEASES][0]))


@pytest.fixture(scope="session")
def slurm_on(request: pytest.FixtureRequest) -> str:
    """What carries the clusters of this run of the test: `single`, `cluster` or `kubernetes`."""
    return cast(str, getattr(request, "param", request.config.stash[_SUBSTRATES][0]))


@pytest.fixture(scope="session")
def slurm_start(
    slurm_release: Release, slurm_on: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Cluster]:
    """Make a cluster of this run's release, on what carries this run's clusters.

    Several hosts share pytest's temporary folders unless `share` is given, so that a test may call `on_path(tmp_path)`:
    to one host, a folder is copied.

    Example:
        def test_two_nodes(slurm_start):
            with slurm_start(nodes=2, memory=4000) as slurm:
                assert slurm.srun("hostname", nodes=2)
    """
    share = {"share": [tmp_path_factory.getbasetemp()]} if slurm_on == "cluster" else {}
    return functools.partial(SUBSTRATES[slurm_on], slurm_release.version, **share)


@pytest.fixture(scope="session")
def slurm_keys() -> ClusterKeys:
    """The munge and JWT keys of this suite, made for it."""
    return ClusterKeys.generate()


@pytest.fixture(scope="session")
def slurm_cluster(
    slurm_start: Callable[..., Cluster],
    slurm_keys: ClusterKeys,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Slurm]:
    """One cluster per release, substrate and worker, for the whole session."""
    # A suite's tests run in its own folder and in pytest's temporary ones; programs that it tests may submit jobs
    # in its own Python.
    on_path = pytestconfig.getoption("slurm_on_path")
    shared = [pytestconfig.rootpath, tmp_path_factory.getbasetemp()] if on_path else []
    with contextlib.ExitStack() as stack:
        share = {"share": [*shared, *this_python()]} if on_path else {}
        cluster = stack.enter_context(slurm_start(keys=slurm_keys, **share))
        if shared:
            stack.enter_context(commands_on_path(cluster, *shared))
        yield cluster


@pytest.fixture
def slurm(request: pytest.FixtureRequest, slurm_cluster: Slurm, slurm_release: Release) -> Slurm:
    """An idle cluster without jobs: the session's own, emptied.

    Example:
        def test_job_completes(slurm):
            assert slurm.sbatch(wrap="hostname").wait().state == "COMPLETED"
    """
    note_cluster(request, slurm_cluster, slurm_release)
    slurm_cluster.reset()
    return slurm_cluster


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that the release cannot pass, and say what it lacks, before anything is started for it."""
    for ability in (ability for mark in item.iter_markers("requires") for ability in mark.args):
        if ability not in item.config.stash[_ABILITIES]:
            # Suites that know nothing of Slurm may have a marker of this name, too.
            if item.config.getoption("slurm_on_path") or "slurm_release" not in getattr(item, "fixturenames", ()):
                continue
            pytest.fail(f"requires({ability!r}): no release of releases.yaml has such an ability", pytrace=False)
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        release = cast(Release, parameters.get("slurm_release", item.config.stash[_RELEASES][0]))
        why = _why_not(ability, release, cast(str, parameters.get("slurm_on", item.config.stash[_SUBSTRATES][0])))
        if why:
            item.user_properties.append(("slurm_lacks", ability))
            pytest.skip(f"not checkable here because {why}")


def _why_not(ability: str, release: Release, slurm_on: str) -> str:
    """Why a test that requires this cannot be run here; empty where it can."""
    if ability == "nfs":
        return "" if os.environ.get(NFS_VARIABLE) else f"{NFS_VARIABLE} names no NFS export, as server:/path"
    if ability == "kubernetes":
        return (
            "" if os.environ.get("KUBECONFIG") else "KUBECONFIG names no Kubernetes (invoke test --kubernetes has one)"
        )
    if ability == "containers":
        why = "pods see no folder of this machine, and not every Kubernetes gives them cgroups of their own"
        return why if slurm_on == "kubernetes" else ""
    if not release.has(ability):
        return f"Slurm {release.version} has no {ability}"
    if ability.startswith("cgroup_v"):
        version = f"cgroup_v{engine.connect().info().get('CgroupVersion') or 'unknown'}"
        if version != ability:
            return f"the engine's host has {version}, not {ability} (invoke test --engine vm has cgroup_v2)"
    return ""


def note_cluster(request: pytest.FixtureRequest, cluster: Slurm, release: Release) -> None:
    """Record on the test which release on which substrate it ran on, and keep the cluster at hand for evidence."""
    request.node.user_properties += [
        ("slurm_release", release.version),
        ("slurm_on", cluster.substrate.facts().kind),
    ]
    request.node.stash[_CLUSTER] = cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Gather the evidence of clusters that the test starts itself, and that its failure ends."""
    with gathered() as item.stash[_ENDED]:
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the daemons' logs to the report of a test that failed."""
    report = yield
    if report.failed and report.when == "call":
        ended = item.stash[_ENDED]
        report.sections += ended
        for cluster in _clusters(item):
            report.sections += collect(cluster)
    return report


def _clusters(item: pytest.Item) -> list[Slurm]:
    """The clusters that a test was given: ours, and those of fixtures that others wrote."""
    given = [item.stash.get(_CLUSTER, None), *getattr(item, "funcargs", {}).values()]
    return list({id(one): one for one in given if isinstance(one, Slurm)}.values())
