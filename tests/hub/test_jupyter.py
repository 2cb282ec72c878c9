"""JupyterLab without a hub: it starts with a real token, has jupyterlab-slurm, and submits jobs from a notebook."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
import requests

from fixtures.hub import Jupyter
from slurm_testbed import SlurmCluster

EXAMPLE = """
from slurm_examples import check_job_status, get_job_output, submit_slurm_job

script = \"\"\"#!/bin/bash
python3 -c "print('Hello from SLURM!')"
\"\"\"

job_id = submit_slurm_job(script, "test_job")
print(job_id, check_job_status(job_id))
print(get_job_output(job_id), check_job_status(job_id))
"""


@pytest.fixture
def jupyter(hub_cluster: SlurmCluster) -> Jupyter:
    """The standalone JupyterLab."""
    parts = urlsplit(hub_cluster.jupyter_url())
    return Jupyter(f"http://{parts.netloc}/", parts.query.removeprefix("token="))


@pytest.mark.row("C-03.1", "C-09.1")
@pytest.mark.smoke
def test_lab_starts_and_opens_by_the_url_that_its_log_shows(hub_cluster: SlurmCluster, jupyter: Jupyter) -> None:
    log = hub_cluster.substrate.logs("jupyter")
    (shown,) = re.findall(r"jupyter: (\S+)", log)

    page = requests.get(hub_cluster.jupyter_url(), timeout=30)

    assert shown == f"http://127.0.0.1:8888/lab?token={jupyter.token}"
    assert (page.status_code, "JupyterLab" in page.text) == (200, True)
    assert log.count(jupyter.token) == 1, "the token is shown once"


@pytest.mark.row("C-03.2")
def test_extension_for_slurm_is_enabled_on_both_sides(hub_cluster: SlurmCluster) -> None:
    listed = ""
    for command in (["server", "extension"], ["labextension"]):
        done = hub_cluster.run(["jupyter", *command, "list"], host="jupyter")
        listed += re.sub(r"\x1b\[\d+m", "", done.stdout + done.stderr)

    assert re.search(r"^ *jupyterlab_slurm enabled$", listed, re.MULTILINE), listed
    assert re.search(r"^ *jupyterlab-slurm v\S+ enabled\s+OK", listed, re.MULTILINE), listed


def test_lab_asks_nobody_for_news_and_updates(jupyter: Jupyter) -> None:
    url = f"{jupyter.url}lab/api/settings/@jupyterlab/apputils-extension:notification"

    settings = requests.get(url, headers={"Authorization": f"token {jupyter.token}"}, timeout=30).json()

    defaults = {name: field["default"] for name, field in settings["schema"]["properties"].items()}
    assert (defaults["fetchNews"], defaults["checkForUpdates"]) == ("false", False)


@pytest.mark.row("C-09.2")
def test_nobody_comes_in_without_the_token(hub_cluster: SlurmCluster, jupyter: Jupyter) -> None:
    for token in ("", "wrong"):
        answer = requests.get(f"{jupyter.url}api/kernels", headers={"Authorization": f"token {token}"}, timeout=30)
        assert answer.status_code == 403, answer.text
    assert requests.get(f"{jupyter.url}lab", timeout=30, allow_redirects=False).status_code == 302

    files = "/run/slurm-testbed/jupyter"
    listed = hub_cluster.run(["sh", "-c", f"stat --format='%U %a' {files} {files}/*"], host="jupyter").stdout
    processes = hub_cluster.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"], host="jupyter").stdout
    assert set(listed.splitlines()) == {"alice 700", "alice 600"}
    assert jupyter.token not in processes


def test_lab_runs_as_a_test_user(hub_cluster: SlurmCluster, jupyter: Jupyter) -> None:
    printed = jupyter.start_kernel().run("import os; print(os.getuid(), os.getcwd(), os.environ.get('JUPYTER_TOKEN'))")

    assert printed == "1000 /shared/jupyter-workspace None\n"


@pytest.mark.row("H-10.1", "H-10.2", "H-10.3")
@pytest.mark.smoke
def test_job_is_submitted_from_a_notebooks_cell(hub_cluster: SlurmCluster, jupyter: Jupyter) -> None:
    printed = jupyter.start_kernel().run(EXAMPLE).split()

    job = hub_cluster.job(int(printed[0]))
    assert printed[1] in {"PENDING", "RUNNING", "COMPLETING", "COMPLETED"}
    assert printed[2:] == ["Hello", "from", "SLURM!", "COMPLETED"]
    assert (job.record().fields["JobName"], job.state) == ("test_job", "COMPLETED")


@pytest.mark.row("H-11.11")
def test_examples_run_as_a_program(hub_cluster: SlurmCluster) -> None:
    done = hub_cluster.run(
        ["python3", "slurm_examples.py"], host="jupyter", user="alice", workdir="/shared/jupyter-workspace"
    )

    assert done.stdout.endswith("COMPLETED\nHello from SLURM!\n")


@pytest.mark.row("C-13.1", "C-13.2", "C-13.3", "C-13.5")
def test_commands_of_a_terminal(hub_cluster: SlurmCluster, jupyter: Jupyter) -> None:
    terminal = jupyter.start_terminal()

    partitions = terminal.run("sinfo")
    nodes = terminal.run("scontrol show nodes")
    submitted = terminal.run("sbatch --wait --job-name=from-a-terminal --wrap hostname")

    assert re.search(r"^debug\*\s+up\s+infinite\s+2\s+idle\s+n\[1-2\]$", partitions, re.MULTILINE), partitions
    assert re.findall(r"^NodeName=(\S+)", nodes, re.MULTILINE) == ["n1", "n2"], nodes
    (job,) = re.findall(r"^Submitted batch job (\d+)$", submitted, re.MULTILINE)
    fields = hub_cluster.job(int(job)).record().fields
    assert (fields["JobName"], fields["JobState"], fields["UserId"]) == ("from-a-terminal", "COMPLETED", "alice(1000)")


def test_refusal_is_slurms_own_word(hub_cluster: SlurmCluster, jupyter: Jupyter) -> None:
    code = """
        from slurm_examples import SlurmError, check_job_status, submit_slurm_job
        try: submit_slurm_job("#!/bin/sh\\n#SBATCH --partition=none\\n")
        except SlurmError as error: print(error)
        try: check_job_status(999999)
        except SlurmError as error: print(error)
    """
    printed = jupyter.start_kernel().run("\n".join(line.strip() for line in code.splitlines()))

    first, second = printed.strip().splitlines()[0], printed.strip().splitlines()[-1]
    assert "invalid partition specified: none" in first
    assert "Invalid job id specified" in second
