"""What docs/ci.md shows: valid, and its steps run as GitHub and GitLab run them, on a real cluster.

The machines of both are stood in for by this one: images are ours, and a service's port is on 127.0.0.1.
"""

from __future__ import annotations

import base64
import re
import secrets
import shlex
import subprocess
import sys
import uuid
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from docker.models.containers import Container

from fixtures.pages import fences
from slurm_testbed import engine
from slurm_testbed.images import image_name
from slurm_testbed.readiness import wait_until
from slurm_testbed.releases import Release

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / "action.yml"
EXAMPLES = [fence.text for fence in fences(ROOT / "docs/ci.md") if fence.language == "yaml"]
SUBMIT = next(fence.text for fence in fences(ROOT / "docs/ci.md") if fence.about == "submit.py")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def example(name: str) -> dict[str, Any]:
    """A workflow of the page by its name, or a job of GitLab."""
    for text in EXAMPLES:
        content: dict[str, Any] = yaml.safe_load(text)
        if content.get("name") == name:
            return content
        if name in content:
            return content[name]  # type: ignore[no-any-return]
    raise AssertionError(f"docs/ci.md has no example {name}")


def filled(text: str, known: Mapping[str, str]) -> str:
    """The text with its expressions' values, of which each has to be known."""
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], text)


def step(step: Mapping[str, Any], known: Mapping[str, str], env: Mapping[str, str], folder: Path) -> str:
    """Run a step as GitHub does, and return what it said.

    https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell
    """
    own = {name: filled(str(value), known) for name, value in step.get("env", {}).items()}
    argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", filled(step["run"], known)]
    done = subprocess.run(argv, cwd=folder, env={**env, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{step['run']}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def image_of(named: str, release: Release) -> str:
    """The image of ours that stands for one of the page."""
    found = re.fullmatch(r"ghcr\.io/example/([\w-]+):25\.11", named)
    assert found, f"{named} is not an image of the page's own repository"
    return image_name(found[1], release)


@pytest.fixture
def owned() -> Iterator[str]:
    """An owner of clusters, which are removed."""
    owner = f"{engine.owner()}/{uuid.uuid4().hex}"
    yield owner
    engine.sweep(engine.connect(), owned_by=owner)


@pytest.fixture
def client() -> docker.DockerClient:
    """The engine."""
    return engine.connect()


@pytest.fixture
def start(client: docker.DockerClient, owned: str) -> Callable[..., Container]:
    """Start a container by docker's command line, as both runners do; it is removed."""

    def start(image: str, *command: str, options: list[str], env: Mapping[str, str] | None = None) -> Container:
        name = f"ci-{secrets.token_hex(4)}"
        labels = {engine.LABEL_CLUSTER: name, engine.LABEL_OWNER: owned}
        argv = ["docker", "run", "--detach", "--name", name, *(f"--label={k}={v}" for k, v in labels.items())]
        # Their values come from the environment, as a runner gives them: an argument could be read by others.
        argv += [f"--env={key}" for key in env or {}]
        environment = {**engine.environment(), **(env or {})}
        subprocess.run([*argv, *options, image, *command], env=environment, check=True, capture_output=True)
        return client.containers.get(name)

    return start


def port_of(container: Container) -> str:
    """Where slurmrestd's port is on this machine."""
    container.reload()
    return str(container.ports["6820/tcp"][0]["HostPort"])


def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a runner that the steps use, with empty files for what they say."""
    (tmp_path / "temp").mkdir(parents=True)
    files = {}
    for name in ("GITHUB_PATH", "GITHUB_ENV", "GITHUB_OUTPUT"):
        path = tmp_path / name.lower()
        path.touch()
        files[name] = str(path)
    kept = {name: value for name, value in engine.environment().items() if name.startswith(("DOCKER", "PIP", "HOME"))}
    # The runner's python3 is the one of this test.
    path = f"{Path(sys.executable).parent}:{SYSTEM_PATH}"
    return {**kept, **files, "PATH": path, "RUNNER_TEMP": str(tmp_path / "temp")}


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.partition("\n")[0].strip(":"))
def test_example_is_valid(text: str, tmp_path: Path) -> None:
    kind = "github-workflows" if "runs-on" in text else "gitlab-ci"
    (tmp_path / "example.yml").write_text(text)

    argv = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", f"vendor.{kind}", "example.yml"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_example_gives_the_action_inputs_that_it_has() -> None:
    inputs = yaml.safe_load(ACTION.read_text())["inputs"]
    (used,) = [step["with"] for step in example("action")["jobs"]["test"]["steps"] if "with" in step]

    assert set(used) <= set(inputs), f"action.yml has {', '.join(inputs)}"


def test_action_puts_no_input_into_a_script() -> None:
    """An input in a script would be a part of it, whatever it contains; in a variable it is a value."""
    for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]:
        assert "${{" not in step["run"], step["name"]


@pytest.mark.deep
def test_action_leaves_sbatch_on_the_path_of_later_steps(tmp_path: Path, slurm_release: Release, owned: str) -> None:
    action = yaml.safe_load(ACTION.read_text())
    steps = example("action")["jobs"]["test"]["steps"]
    (given,) = [step["with"] for step in steps if "with" in step]
    workspace = tmp_path / "work"
    workspace.mkdir()
    env = environment(tmp_path)
    repository = image_name("slurm-single-node", slurm_release).rpartition("/")[0]
    known = {"github.action_path": str(ROOT), "github.workspace": str(workspace)}
    inputs = {name: filled(str(one["default"]), known) for name, one in action["inputs"].items()}
    inputs |= given | {"release": slurm_release.minor, "repository": repository}
    known |= {f"inputs.{name}": value for name, value in inputs.items()}
    known |= {"github.run_id": f"{owned}/run", "github.run_attempt": "1", "github.job": "test"}

    for one in action["runs"]["steps"]:
        step(one, known, env, workspace)

    added = Path(env["GITHUB_PATH"]).read_text().strip()
    variables = dict(line.split("=", 1) for line in Path(env["GITHUB_ENV"]).read_text().splitlines())
    later = {**env, **variables, "PATH": f"{added}:{env['PATH']}"}
    try:
        (last,) = [one for one in steps if "run" in one]
        assert sorted(step(last, known, later, workspace).split()[-2:]) == ["n1", "n2"]
        assert sorted((workspace / "out.txt").read_text().split()) == ["n1", "n2"], "the file is not the runner's"
        assert "url=http://" in Path(env["GITHUB_OUTPUT"]).read_text()
    finally:
        said = step({"run": "slurm-testbed-down"}, known, later, workspace)
    assert "removed container" in said
    assert not Path(added).exists(), "the commands of a cluster that is gone are left"


@pytest.mark.deep
def test_github_service_runs_jobs_and_answers_rest(
    tmp_path: Path, slurm_release: Release, client: docker.DockerClient, start: Callable[..., Container]
) -> None:
    job = example("service")["jobs"]["test"]
    service = job["services"]["slurm"]
    publish = [f"--publish=127.0.0.1::{port}" for port in service["ports"]]
    container = start(image_of(service["image"], slurm_release), options=[*shlex.split(service["options"]), *publish])

    def health() -> str:
        return str(client.api.inspect_container(container.id)["State"]["Health"]["Status"])

    wait_until(lambda: health() == "healthy", "the service to be healthy", deadline=120, state=health)
    known = {
        "job.services.slurm.id": str(container.id),
        "job.services.slurm.ports['6820']": port_of(container),
    }
    said = [step(one, known, environment(tmp_path / str(at)), tmp_path) for at, one in enumerate(job["steps"])]

    assert "Submitted batch job 1" in said[0], said
    assert "::add-mask::" in said[1], said
    assert '"openapi": "3.' in said[1], said[1]


@pytest.mark.deep
def test_gitlab_service_takes_a_job_by_rest(
    tmp_path: Path, slurm_release: Release, start: Callable[..., Container]
) -> None:
    job = example("rest")
    (service,) = job["services"]
    secret = {"SLURM_JWT_KEY": base64.b64encode(secrets.token_bytes(32)).decode()}
    program, *arguments = service["entrypoint"]
    options = ["--publish=127.0.0.1::6820", f"--entrypoint={program}"]
    container = start(image_of(service["name"], slurm_release), *arguments, options=options, env=secret)
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(tmp_path / "venv", with_pip=True)
    (tmp_path / "submit.py").write_text(SUBMIT)
    env = environment(tmp_path) | job["variables"] | secret
    env |= {"PATH": f"{tmp_path}/venv/bin:{SYSTEM_PATH}", "PIP_FIND_LINKS": str(wheels)}
    env["SLURM_URL"] = env["SLURM_URL"].replace(f"{service['alias']}:6820", f"127.0.0.1:{port_of(container)}")

    said = step({"run": "\n".join(job["script"])}, {}, env, tmp_path)

    assert "job 1 is completed" in said, said
    assert secret["SLURM_JWT_KEY"] not in container.logs().decode(), "the key is in the service's log"


@pytest.mark.deep
def test_gitlab_job_in_the_image_calls_sbatch(slurm_release: Release, start: Callable[..., Container]) -> None:
    job = example("commands")
    assert job["image"]["entrypoint"] == [""]
    script = "\n".join(["set -e", "cd $(mktemp -d)", *job["script"]])

    container = start(image_of(job["image"]["name"], slurm_release), "-c", script, options=["--entrypoint=sh"])
    status = container.wait(timeout=120)["StatusCode"]

    said = container.logs().decode()
    assert status == 0, said
    assert "Submitted batch job 1" in said, said
    assert said.splitlines()[-1] == "n1", said
