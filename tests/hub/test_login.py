"""The page: it answers, takes the host's own users by PAM, and nobody else."""

from __future__ import annotations

import pytest
import requests

from slurm_testbed import SlurmCluster
from slurm_testbed.compose import Hub
from slurm_testbed.errors import HubError


def log_in(hub: Hub, user: str, password: str) -> requests.Response:
    """Fill in the form as a browser does, and return the page that comes."""
    session = requests.Session()
    session.trust_env = False
    session.get(f"{hub.url}/hub/login", timeout=30)
    form = {"username": user, "password": password, "_xsrf": session.cookies["_xsrf"]}
    return session.post(f"{hub.url}/hub/login?next=%2Fhub%2Fhome", data=form, timeout=30)


@pytest.mark.row("H-09.1")
@pytest.mark.smoke
def test_page_answers_on_port_8000_of_the_hub(hub_cluster: SlurmCluster) -> None:
    code = "import urllib.request; print(urllib.request.urlopen('http://hub:8000/').geturl())"

    answer = hub_cluster.run(["python3", "-c", code], host="jupyter").stdout.strip()

    assert answer == "http://hub:8000/hub/login?next=%2Fhub%2F"


@pytest.mark.row("H-09.2")
@pytest.mark.smoke
def test_user_of_the_host_logs_in_with_the_password_made_for_this_cluster(hub: Hub) -> None:
    page = log_in(hub, "alice", hub.passwords()["alice"])

    assert (page.status_code, page.url) == (200, f"{hub.url}/hub/home")
    assert "alice" in page.text


@pytest.mark.parametrize(("user", "password"), [("alice", "wrong"), ("nobody-here", "x"), ("bob", ""), ("slurm", "")])
def test_wrong_password_and_unknown_user_are_refused_in_words(hub: Hub, user: str, password: str) -> None:
    page = log_in(hub, user, password)

    assert page.status_code == 403
    assert "Invalid username or password" in page.text


def test_api_refuses_an_unknown_user_and_a_wrong_token_in_words(hub_cluster: SlurmCluster) -> None:
    hub = hub_cluster.hub
    for path, status, words in (
        ("users/nobody-here", 400, "Failed to create user: nobody-here"),
        ("users/nobody-here/server", 404, "Not Found"),
    ):
        with pytest.raises(HubError, match=words) as caught:
            hub.api("POST", path)
        assert caught.value.status == status
    with pytest.raises(HubError, match="Missing or invalid credentials") as caught:
        hub.api("POST", "users/alice/server", headers={"Authorization": "token wrong"})

    assert caught.value.status == 403
    assert hub_cluster.queue() == []


def test_password_of_one_is_not_that_of_another(hub: Hub) -> None:
    passwords = hub.passwords()

    assert set(passwords) == {"alice", "bob", "carol", "dave"}
    assert len(set(passwords.values())) == len(passwords)
    assert log_in(hub, "bob", passwords["alice"]).status_code == 403


def test_secrets_are_for_root_alone_and_in_no_log(hub_cluster: SlurmCluster) -> None:
    paths = [f"/var/lib/jupyterhub/{name}" for name in ("passwords", "api-token", "cookie-secret", "jupyterhub.sqlite")]
    paths.append("/var/lib/jupyterhub-proxy/token")

    listed = hub_cluster.run(["stat", "--format=%U %a %n", *paths], host="hub").stdout.splitlines()
    folder = hub_cluster.run(["stat", "--format=%U %a", "/var/lib/jupyterhub"], host="hub").stdout.strip()

    assert folder == "root 700"
    assert [line for line in listed if not line.startswith("root 600 ") and "sqlite" not in line] == []
    secrets = [*hub_cluster.hub.passwords().values(), hub_cluster.hub.token(), hub_cluster.read(paths[-1], host="hub")]
    logs = "".join(hub_cluster.substrate.logs(host) for host in ("hub", "proxy", "jupyter", "slurmctld", "n1"))
    processes = "".join(
        hub_cluster.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"], host=host).stdout for host in ("hub", "proxy")
    )
    assert not [secret for secret in secrets if secret in logs or secret in processes]
