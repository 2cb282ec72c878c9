"""What SlurmCluster tells docker compose; no engine is asked."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import yaml

from slurm_testbed import SlurmCluster, data
from slurm_testbed.compose.app_sessions import AppSessions
from slurm_testbed.compose.cluster import further_node, override
from slurm_testbed.compose.ssh import ssh_config
from slurm_testbed.errors import AppSessionsError, UsageError
from slurm_testbed.slurm import Slurm


def test_repository_of_the_caller_reaches_compose() -> None:
    assert SlurmCluster("24.11", repository="me").project.settings["REPOSITORY"] == "me"


def test_repository_is_left_to_the_environment_where_none_is_given() -> None:
    assert "REPOSITORY" not in SlurmCluster("24.11").project.settings


def test_nfs_export_brings_its_file_and_its_parts() -> None:
    project = SlurmCluster("24.11", shared_nfs="server:/export/slurm").project

    assert "nfs.yaml" in [path.name for path in project.files]
    assert (project.settings["NFS_SERVER"], project.settings["NFS_PATH"]) == ("server", "/export/slurm")


def config(files: list[Path], *arguments: str) -> str:
    """What `docker compose config` prints, which takes the files."""
    settings = {"VERSION": "24.11.5", "NFS_SERVER": "server", "NFS_PATH": "/export"}
    done = subprocess.run(
        ["docker", "compose", *(f"--file={path}" for path in files), "config", *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


STACKS = ["cluster", "hub", "observability", "viz"]


@pytest.mark.parametrize("stack", STACKS)
def test_stack_is_a_file_of_its_name(stack: str) -> None:
    assert SlurmCluster("24.11", stack=stack).project.files[0].name == f"{stack}.yaml"


@pytest.mark.parametrize("further", ["cgroups.yaml", "nfs.yaml"])
@pytest.mark.parametrize("stack", STACKS)
def test_compose_takes_the_files_that_change_every_stacks_nodes(stack: str, further: str) -> None:
    config([data.compose() / name for name in (f"{stack}.yaml", further)], "--quiet")


@pytest.mark.parametrize("stack", STACKS)
def test_deadlines_reach_every_host(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines = {"SLURM_TESTBED_DEADLINE": "77", "SLURM_TESTBED_JOIN_DEADLINE": "400"}
    for name, seconds in deadlines.items():
        monkeypatch.setenv(name, seconds)

    services = json.loads(config([data.compose() / f"{stack}.yaml"], "--format=json"))["services"]

    without = [name for name, host in services.items() if not deadlines.items() <= host.get("environment", {}).items()]
    assert without == []


def test_values_reach_the_hosts_as_they_are_given(tmp_path: Path) -> None:
    secret = "pa$$w$HOME${X}"
    (tmp_path / "nodes.yaml").write_text(yaml.safe_dump(override(3, ["/srv/$x"], {"SECRET": secret}, cgroups=False)))

    printed = config([data.compose() / "cluster.yaml", tmp_path / "nodes.yaml"], "--format=json")

    for name in ("slurmctld", "n1", "n3"):
        service = json.loads(printed)["services"][name]
        # It prints them as a compose file has them.
        assert service["environment"]["SECRET"].replace("$$", "$") == secret
        assert "/srv/$x" in [volume["source"].replace("$$", "$") for volume in service["volumes"]]


def test_node_of_the_readme_is_one_that_compose_takes(tmp_path: Path) -> None:
    folder = data.compose()
    (snippet,) = re.findall(r"```yaml\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(snippet)

    assert "n3" in config([folder / "cluster.yaml", tmp_path / "mine.yaml"], "--services").split()


def test_further_node_has_what_both_its_stack_and_cgroups_ask_for() -> None:
    node = further_node([], {}, cgroups=True, stack="viz")

    assert node["image"].endswith("/slurm-viz:${VERSION}")
    assert (node["devices"], node["security_opt"]) == (["/dev/fuse"], ["apparmor=unconfined"])
    assert {"SYS_ADMIN", "SYS_PTRACE"} <= set(node["cap_add"])


def test_unknown_stack_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="there is no stack nonsense") as caught:
        SlurmCluster("24.11", stack="nonsense")

    assert "cluster, hub" in str(caught.value)


def test_configuration_of_a_hub_is_refused_where_there_is_none() -> None:
    with pytest.raises(UsageError, match="the stack cluster has no hub"):
        SlurmCluster("24.11", hub_conf={"30-spawner.py": ""})


# --- what its hosts are reached by -----------------------------------------------------------------------


def hosting(name: str, daemon: str, port: int) -> Slurm:
    """A cluster of one host whose commands answer what a key and a file of passwords look like."""
    substrate = SimpleNamespace(
        hosts=lambda: [SimpleNamespace(name=name, daemons=[daemon])], endpoint=lambda *_: ("127.0.0.1", port)
    )
    done = SimpleNamespace(stdout="ssh-ed25519 AAAA\nprivate\n")
    found = SimpleNamespace(
        substrate=substrate,
        host_of=lambda _: name,
        home=lambda user: f"/home/{user}",
        run=lambda *_, **__: done,
        read=lambda *_, **__: "alice:secret\n",
    )
    return cast(Slurm, found)


def test_ssh_takes_the_configuration_in_a_folder_with_blanks_and_percents(tmp_path: Path) -> None:
    (tmp_path / "of a 100%user").mkdir()
    folder = tmp_path / "of a 100%user" / "ssh"

    path = ssh_config(hosting("login", "sshd", 22), "bob", folder)

    done = subprocess.run(["ssh", "-G", "-F", path, "login"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Of the key's name it takes %% for % when it reads the key.
    said = done.stdout.replace("%%", "%").splitlines()
    assert {f"identityfile {folder}/id_ed25519", f"userknownhostsfile {folder}/known_hosts"} <= set(said)


class Web(ThreadingHTTPServer):
    """Answers whatever it is asked with a token, and remembers by whom."""

    def __init__(self) -> None:
        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(self.path)
                self.rfile.read(int(self.headers["Content-Length"]))
                body = b'{"token": "of alice"}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.asked = asked = list[str]()
        super().__init__(("127.0.0.1", 0), Answer)


@pytest.fixture
def webs() -> Iterator[tuple[Web, Web]]:
    """A service, and a proxy that would have it all."""
    with Web() as service, Web() as proxy:
        for one in (service, proxy):
            threading.Thread(target=one.serve_forever, daemon=True).start()
        yield service, proxy
        for one in (service, proxy):
            one.shutdown()


def test_password_goes_to_the_application_sessions_and_to_no_proxy(
    webs: tuple[Web, Web], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, proxy = webs
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")

    token = AppSessions(hosting("app-sessions", "app-sessions", service.server_port)).token("alice")

    assert (token, service.asked, proxy.asked) == ("of alice", ["/api/login"], [])


def test_login_where_nothing_answers_is_an_error_of_the_application_sessions() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # and nobody listens
        sessions = AppSessions(hosting("app-sessions", "app-sessions", probe.getsockname()[1]))

        with pytest.raises(
            AppSessionsError, match="alice cannot log in: nothing answers at http://127.0.0.1:"
        ) as caught:
            sessions.token("alice")

    assert caught.value.status == 0
