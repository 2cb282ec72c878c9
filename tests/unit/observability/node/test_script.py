"""The script that Slurm runs as prolog and epilog."""

from __future__ import annotations

import re
import subprocess

import pytest
from slurm_observability.node.spool import Spool

from tests.unit.observability.node.conftest import PROLOG, SCRIPTS, run_script

BY_NAME = {
    "prolog.d/50-observability.sh": "prolog",
    "epilog.d/50-observability.sh": "epilog",
    "prolog.slurmctld.sh": "prologslurmctld",
    "epilog.slurmctld.sh": "epilogslurmctld",
}


@pytest.mark.parametrize(("script", "source"), BY_NAME.items())
def test_run_by_hand_it_knows_its_source_by_its_name(spool: Spool, script: str, source: str) -> None:
    done = run_script(spool, script, SLURM_JOB_ID="99999")

    [record] = spool.records()
    assert (record.source, record.job_id) == (source, 99999)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("context", ["prolog_slurmd", "epilog_slurmd", "prolog_slurmctld", "epilog_slurmctld"])
def test_slurm_says_which_it_is_whatever_its_name(spool: Spool, context: str) -> None:
    run_script(spool, "prolog.d/50-observability.sh", SLURM_JOB_ID="7", SLURM_SCRIPT_CONTEXT=context)

    [record] = spool.records()
    assert record.source == context.replace("_slurmd", "").replace("_", "")


def test_values_come_as_they_are(spool: Spool) -> None:
    odd = "a 'b' \"$(touch /tmp/x)\" `id` \\ %s é\nSLURM_JOB_ID=1"
    run_script(spool, "prolog.slurmctld.sh", **PROLOG | {"SLURM_JOB_NAME": odd})

    [record] = spool.records()
    assert {name: record.values[name] for name in PROLOG if name != "SLURM_SCRIPT_CONTEXT"} == {
        name: value for name, value in PROLOG.items() if name != "SLURM_SCRIPT_CONTEXT"
    }
    assert record.values["SLURM_JOB_NAME"] == odd


def test_record_is_for_its_owner_alone(spool: Spool) -> None:
    run_script(spool, "prolog.d/50-observability.sh", **PROLOG)

    [path] = spool.new.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("script", BY_NAME)
def test_without_a_folder_it_ends_well_and_says_nothing(spool: Spool, script: str) -> None:
    spool.new.rmdir()

    done = run_script(spool, script, **PROLOG)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("job_id", ["", "../../x", "7;id", "$(id)"])
def test_what_is_no_job_leaves_nothing(spool: Spool, job_id: str) -> None:
    done = run_script(spool, "prolog.d/50-observability.sh", SLURM_JOB_ID=job_id)

    assert (done.returncode, list(spool.root.rglob("*.prolog.*"))) == (0, [])


def test_name_is_the_runs_own(spool: Spool) -> None:
    script = str(SCRIPTS / "prolog.d/50-observability.sh")
    process = subprocess.Popen([script], env={"OBSERVABILITY_SPOOL": str(spool.root), **PROLOG})
    process.wait()

    [record] = spool.records()
    assert re.fullmatch(rf"12\.prolog\.\d+\.\d\d\.{process.pid}", record.name)


def test_scripts_are_executable() -> None:
    assert {script for script in BY_NAME if not (SCRIPTS / script).stat().st_mode & 0o111} == set()
