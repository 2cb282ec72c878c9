"""slurm-jupyter and slurm-jupyter-notebook alone, as `docker run` has them: their tokens, and what they refuse."""

from __future__ import annotations

import pytest

from slurm_testbed.slurm import Slurm
from tests.images.conftest import Image

jupyter_image = pytest.mark.parametrize("target", ["slurm-jupyter"])
ASK = "import sys, urllib.request; print(urllib.request.urlopen(f'http://127.0.0.1:8888/api/{sys.argv[1]}').status)"


def status(slurm: Slurm, path: str) -> str:
    """What JupyterLab answers without a token: a status, or the end of an error."""
    done = slurm.run(["python3", "-c", ASK, path], check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.mark.row("C-09.3", "C-09.4")
@jupyter_image
def test_no_token_at_all_only_when_asked_for_by_name_with_a_warning(image: Image) -> None:
    with image.started(options=["--env=JUPYTER_INSECURE_NO_TOKEN=yes"]) as asked:
        assert status(asked, "kernels") == "200"
        log = asked.substrate.logs(asked.controller)
    with image.started(options=["--env=JUPYTER_TOKEN="]) as other:
        assert status(other, "kernels") == "urllib.error.HTTPError: HTTP Error 403: Forbidden"

    assert "warning: JUPYTER_INSECURE_NO_TOKEN=yes: whoever reaches port 8888 runs commands as alice" in log


@pytest.mark.row("C-09.3")
@jupyter_image
@pytest.mark.parametrize(
    ("options", "command", "said"),
    [
        ([], ["jupyterlab", "--NotebookApp.token=''"], "a token or password on the command line is seen by everybody"),
        (["--env=JUPYTER_TOKEN=short"], [], "the token that was given is no token"),
        (["--env=JUPYTER_INSECURE_NO_TOKEN=maybe"], [], "JUPYTER_INSECURE_NO_TOKEN=maybe is neither yes nor no"),
    ],
    ids=["on the command line", "too short", "neither"],
)
def test_wrong_token_is_one_message(image: Image, options: list[str], command: list[str], said: str) -> None:
    done = image.run(*command, options=options)

    assert done.returncode == 1
    assert said in done.stderr
    assert "hint: " in done.stderr


@jupyter_image
def test_given_token_is_taken_and_not_shown(image: Image) -> None:
    token = "a-token-of-my-own"
    with image.started(files={"/run/secrets/jupyter_token": token}) as slurm:
        log = slurm.substrate.logs(slurm.controller)
        assert slurm.run(["cat", "/run/slurm-testbed/jupyter/token"]).stdout.strip() == token

    assert "with the token that was given" in log
    assert token not in log


@jupyter_image
def test_command_joins_as_a_client_and_starts_no_lab(image: Image) -> None:
    done = image.run("sh", "-c", "id -un; cat /proc/[0-9]*/comm")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("alice\n")
    assert "munged" in done.stdout
    assert "jupyter-lab" not in done.stdout


@pytest.mark.parametrize("target", ["slurm-jupyter-notebook"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "there is no /etc/slurm/slurm.conf"),
        (["--env=SLURM_CONF_SERVER=x:6817"], "there is no munge key"),
        (["--user=1001"], "this image runs as uid 1000, and this container as 1001"),
    ],
)
def test_notebook_server_without_its_cluster_is_one_message(image: Image, options: list[str], said: str) -> None:
    done = image.run(options=options)

    assert done.returncode == 1
    assert said in done.stderr
    assert "hint: " in done.stderr
