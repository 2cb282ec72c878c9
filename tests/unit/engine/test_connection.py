"""The container engine: found, and what to do where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from slurm_testbed import engine
from slurm_testbed.engine import connection
from slurm_testbed.errors import EngineNotFoundError
from tests.unit.engine.conftest import UBUNTU, Bench


def test_connect_without_engine_says_what_to_install_with_status_3(bench: Bench) -> None:
    machine = replace(bench.machine, os_release=lambda: UBUNTU)

    with pytest.raises(EngineNotFoundError) as caught:
        engine.connect(machine=machine)

    assert str(caught.value) == (
        "no container engine answers here: install Docker Engine with buildx and compose "
        "(as root: apt-get install docker.io docker-buildx docker-compose-v2) and start it"
    ), f"it said: {caught.value}"
    assert caught.value.exit_status == 3, f"exit status {caught.value.exit_status}"


def test_connect_with_engine_installed_but_stopped_says_how_to_start_it(bench: Bench) -> None:
    bench.add_dockerd()
    (bench.machine.root / "run/systemd/system").mkdir(parents=True)

    with pytest.raises(EngineNotFoundError, match=r"does not run: start it as root with `systemctl start docker`"):
        engine.connect(machine=bench.machine)


def test_connect_honours_docker_host_and_tries_no_other(bench: Bench) -> None:
    environ = {**bench.machine.environ, "DOCKER_HOST": "unix:///nowhere.sock"}

    with pytest.raises(EngineNotFoundError, match=r"DOCKER_HOST says unix:///nowhere\.sock.*no such socket"):
        engine.connect(machine=replace(bench.machine, environ=environ, root=Path("/")))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"DOCKER_TLS_VERIFY": "1"}, "DOCKER_TLS_VERIFY asks for TLS, but ~/.docker has not all of cert.pem"),
        ({"DOCKER_CERT_PATH": "/nowhere"}, "DOCKER_CERT_PATH asks for TLS, but /nowhere has not all of cert.pem"),
    ],
)
def test_connect_where_certificates_are_missing_names_the_setting_that_asks_for_them(
    bench: Bench, setting: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {**bench.machine.environ, "DOCKER_HOST": "tcp://127.0.0.1:1", **setting}

    with pytest.raises(EngineNotFoundError, match=says):
        engine.connect(machine=replace(bench.machine, environ=environ))


def test_connect_over_ssh_says_which_package_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("docker.api.client.SSHHTTPAdapter", raising=False)  # as where there is no paramiko
    environ = {**bench.machine.environ, "DOCKER_HOST": "ssh://host"}

    with pytest.raises(EngineNotFoundError, match=r"says ssh://host, .*ssh:// needs .*pip install 'docker\[ssh\]'"):
        engine.connect(machine=replace(bench.machine, environ=environ))


def test_connect_honours_the_current_docker_context(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from docker.context import ContextAPI

    (tmp_path / "config.json").write_text('{"currentContext": "afar"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    ContextAPI.create_context("afar", host="unix:///afar.sock")

    with pytest.raises(EngineNotFoundError, match=r"the docker context afar says unix:///afar\.sock"):
        engine.connect(machine=bench.machine)


def test_connect_with_an_unknown_context_names_it(bench: Bench) -> None:
    environ = {**bench.machine.environ, "DOCKER_CONTEXT": "nosuch"}

    with pytest.raises(EngineNotFoundError, match="there is no docker context nosuch"):
        engine.connect(machine=replace(bench.machine, environ=environ))


@pytest.mark.parametrize("folder", ["runtime/podman", "run/podman"])
def test_environment_points_docker_at_the_socket_of_podman(bench: Bench, folder: str) -> None:
    """Podman is the fake daemon here: what matters is the place."""
    root = bench.machine.root
    environ = {**bench.machine.environ, "XDG_RUNTIME_DIR": str(root / "runtime")}
    bench.add_dockerd()
    engine.ensure(machine=bench.machine).close()
    (root / folder).mkdir(parents=True)
    (root / "var/run/docker.sock").rename(root / folder / "podman.sock")

    env = engine.environment(machine=replace(bench.machine, environ=environ))

    assert env["DOCKER_HOST"] == f"unix://{root}/{folder}/podman.sock", f"DOCKER_HOST is {env.get('DOCKER_HOST')}"


def test_environment_of_the_default_socket_adds_nothing(client: docker.DockerClient) -> None:
    assert client.ping(), "the engine does not answer"

    env = engine.environment(machine=replace(engine.THIS, environ={"A": "1"}))

    assert env == {"A": "1"}, f"it added {env}"


def test_connect_where_the_user_has_no_rights_says_which_group(bench: Bench) -> None:
    text = connection.what_to_do(bench.machine, {"/var/run/docker.sock": "permission denied"})

    assert "may not use the container engine at /var/run/docker.sock" in text, text
    assert "usermod -aG docker" in text, text


@pytest.mark.parametrize(
    ("base_url", "ssh_host", "address", "everywhere"),
    [
        ("http+docker://localhost", "", "127.0.0.1", False),
        ("http://127.0.0.1:2375", "", "127.0.0.1", False),
        ("https://lab.example:2376", "", "lab.example", True),
        ("http+docker://ssh", "me@lab.example:22", "lab.example", True),
    ],
)
def test_ports_of_another_machines_containers_are_published_and_reached_there(
    base_url: str, ssh_host: str, address: str, everywhere: bool
) -> None:
    client: Any = SimpleNamespace(
        api=SimpleNamespace(base_url=base_url, get_adapter=lambda _: SimpleNamespace(ssh_host=ssh_host))
    )

    assert (engine.address(client), engine.publishes_on(client) != "127.0.0.1") == (address, everywhere)
