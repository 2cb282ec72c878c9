"""Slurm's commands on the caller's PATH behave as on a host of the cluster."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_testbed import SlurmContainer
from slurm_testbed.errors import UsageError
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm

pytestmark = pytest.mark.requires("containers")


@pytest.fixture(params=["copied", "shared"])
def workdir(
    request: pytest.FixtureRequest, slurm_release: Release, slurm_on: str, tmp_path: Path
) -> Iterator[tuple[Slurm, Path]]:
    """A folder whose commands run in a cluster that shares it, or that gets copies."""
    if request.param == "copied":
        if slurm_on == "cluster":
            pytest.skip("not checkable here because several hosts get no copies: tests/cluster has the refusal")
        yield request.getfixturevalue("slurm"), tmp_path
    else:
        with SlurmContainer(slurm_release.version, share=[tmp_path]) as slurm:
            yield slurm, tmp_path


def run(argv: list[str], folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_job_runs_as_the_caller_in_the_callers_folder(workdir: tuple[Slurm, Path]) -> None:
    slurm, folder = workdir
    (folder / "job.sh").write_text("#!/bin/bash\n#SBATCH --output=out.txt\nid --user\npwd\ncat input\nexit 5\n")
    (folder / "input").write_text("given\n")

    with slurm.on_path(folder):
        done = run(["sbatch", "--wait", "job.sh"], folder)

    assert done.returncode == 5, done.stderr
    assert (folder / "out.txt").read_text().split() == [str(os.getuid()), str(folder), "given"]


def test_what_the_caller_changes_meanwhile_stays(slurm: Slurm, tmp_path: Path) -> None:
    """Of a folder that is copied; a job that still writes at the end is copied as far as it is."""
    for name in ("mine", "stale", "theirs"):
        (tmp_path / name).write_text("before\n")

    with slurm.on_path(tmp_path):
        script = "echo job > theirs; echo new > new; while echo line >> growing; do :; done"
        done = run(["sbatch", "--parsable", "--output=out.txt", "--wrap", script], tmp_path)
        assert done.returncode == 0, done.stderr
        slurm.wait_until(lambda: slurm.run(["test", "-s", f"{tmp_path}/growing"], check=False).returncode == 0, "lines")
        (tmp_path / "mine").write_text("after\n")
        (tmp_path / "stale").unlink()
        assert run(["squeue"], tmp_path).returncode == 0
        assert not (tmp_path / "stale").exists()

    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found.pop("growing").startswith("line\nline\n")
    assert found == {"mine": "after\n", "theirs": "job\n", "new": "new\n", "out.txt": ""}


def test_folder_is_entered_by_a_link(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    with slurm.on_path(tmp_path / "real"):
        done = run(["sh", "-c", f"cd {tmp_path}/link && srun pwd"], tmp_path)

    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/real\n"), done.stderr


def test_commands_have_no_password_of_the_caller(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", '{"auths": "hunter2"}')

    with slurm.on_path(tmp_path) as folder:
        assert "hunter2" not in (folder / "sbatch").read_text()


def test_another_slurm_of_the_caller_stays_there(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_CONF": "/nowhere/slurm.conf", "SLURM_JOB_ID": "4711", "SLURM_NODELIST": "site9"}.items():
        monkeypatch.setenv(name, value)

    with slurm.on_path(tmp_path):
        monkeypatch.setenv("SLURM_JOB_NAME", "mine")
        done = run(["srun", "printenv", "SLURM_JOB_NAME"], tmp_path)

    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr


def test_script_outside_the_folder_may_be_named_from_it(slurm: Slurm, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "job.sh").write_text("#!/bin/sh\necho from outside\n")

    with slurm.on_path(inside):
        done = run(["sbatch", "--wait", "--output=out", "../job.sh"], inside)

    assert done.returncode == 0, done.stderr
    assert (inside / "out").read_text() == "from outside\n"


def test_stdin_variables_and_exit_status_pass_through(slurm: Slurm, tmp_path: Path) -> None:
    with slurm.on_path(tmp_path):
        env = {**os.environ, "SBATCH_JOB_NAME": "from-environment", "SLURM_TIME_FORMAT": "%Y"}
        submitted = run(["sbatch", "--parsable", "--hold"], tmp_path, input="#!/bin/sh\ntrue\n", env=env)
        listed = run(["squeue", "--noheader", "--format=%j %V"], tmp_path, env=env)
        refused = run(["scontrol", "show", "job", "999999"], tmp_path)

    assert submitted.returncode == 0, submitted.stderr
    name, year = listed.stdout.split()
    assert name == "from-environment"
    assert len(year) == 4, "SLURM_TIME_FORMAT was not seen"
    assert refused.returncode == 1
    assert "Invalid job id specified" in refused.stderr


def test_variable_reaches_the_job_but_no_argument_list(slurm: Slurm, tmp_path: Path) -> None:
    secret = "a-value-that-nobody-may-see"
    process = None
    try:
        with slurm.on_path(tmp_path):
            env = {**os.environ, "MY_TOKEN": secret}
            process = subprocess.Popen(
                ["srun", "sh", "-c", "echo $MY_TOKEN; sleep 600"],
                cwd=tmp_path,
                env=env,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            seen = process.stdout.readline().strip()
            lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
            inside = slurm.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"]).stdout
    finally:
        if process:
            process.terminate()
            process.communicate()

    assert seen == secret, "the job does not see the variable"
    assert not [line for line in lines if secret.encode() in line]
    assert secret not in inside


def test_script_outside_the_folder_is_lent_to_sbatch(slurm: Slurm, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "of a program" / "job script.sh"
    inside.mkdir()
    outside.parent.mkdir()
    outside.write_text('#!/bin/sh\nprintf "%s\\n" "$SLURM_JOB_NAME" "$@"\n')

    with slurm.on_path(inside):
        done = run(["sbatch", "--wait", "--output=out.txt", str(outside), "two words", str(outside)], inside)
        refused = run(["sbatch", str(outside.parent / "missing.sh")], inside)

    assert done.returncode == 0, done.stderr
    # An argument of the script is not sbatch's to read.
    assert (inside / "out.txt").read_text().splitlines() == ["job script.sh", "two words", str(outside)]
    assert "Unable to open file" in refused.stderr
    assert slurm.run(["find", "/run/slurm-testbed/stdin", "-name", "*.sh"]).stdout == ""


def test_interrupted_srun_ends_its_job(slurm: Slurm, tmp_path: Path) -> None:
    with slurm.on_path(tmp_path):
        process = subprocess.Popen(["srun", "sleep", "600"], cwd=tmp_path, stderr=subprocess.PIPE)
        try:
            job = slurm.wait_until(slurm.queue, "srun's job")[0]
            slurm.job(job).wait(until={"RUNNING"})
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=60)
        finally:
            process.kill()
            process.communicate()

    assert code != 0
    assert slurm.job(job).wait().state in {"CANCELLED", "FAILED"}


def test_path_is_as_before_afterwards(slurm: Slurm, tmp_path: Path) -> None:
    before = os.environ["PATH"]

    with slurm.on_path(tmp_path) as folder:
        assert shutil.which("sbatch") == str(folder / "sbatch")

    assert os.environ["PATH"] == before
    assert not folder.exists()


def test_folder_outside_is_refused_in_words(slurm: Slurm, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()

    with slurm.on_path(inside):
        done = run(["squeue"], outside)

    assert done.returncode == 1
    assert f"the cluster sees {inside} and what is below" in done.stderr


def test_missing_folder_is_refused(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"), slurm.on_path(tmp_path / "nowhere"):
        pass


#: A program that submits itself, as dask-jobqueue's workers do.
ITSELF = """
import subprocess, sys

def test_submit_itself():
    argv = ["srun", sys.executable, "-c", "import sys, pytest; print(sys.prefix)"]
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout == sys.prefix + "\\n"
"""


def test_foreign_suite_submits_its_own_python(slurm: Slurm, slurm_release: Release, tmp_path: Path) -> None:
    theirs, ours = glibc(slurm.run(["getconf", "GNU_LIBC_VERSION"]).stdout), glibc(" ".join(platform.libc_ver()))
    if theirs < ours:
        pytest.skip(f"not checkable here because {slurm_release} has glibc {theirs}, and this Python needs {ours}")
    (tmp_path / "test_theirs.py").write_text(ITSELF)

    done = run(foreign_suite(slurm_release), tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def glibc(text: str) -> tuple[int, ...]:
    """The version in "glibc 2.41"."""
    return tuple(int(number) for number in text.split()[-1].split("."))


def foreign_suite(release: Release) -> list[str]:
    options = ["-p", "no:cacheprovider", "--slurm-on-path", f"--slurm-release={release.version}"]
    return [sys.executable, "-m", "pytest", *options]


@pytest.mark.row("U-07")
def test_foreign_suite_runs_unchanged(slurm_release: Release, tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        textwrap.dedent(
            """
            import pathlib, subprocess, sys, time

            def sh(*argv):
                return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

            def test_submit_and_account():
                job = sh("sbatch", "--parsable", "--output=result.txt", "--wrap=echo from the cluster").strip()
                until = time.monotonic() + 30
                while sh("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").strip() != "COMPLETED":
                    assert time.monotonic() < until
                assert "COMPLETED" in sh("sacct", "--noheader", "--allocations", f"--jobs={job}", "--format=State")
                sh("squeue")
                assert pathlib.Path("result.txt").read_text() == "from the cluster\\n"
            """
        )
    )
    done = run(foreign_suite(slurm_release), tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


OLDER = """
import shutil, subprocess, unittest
import pytest

pytestmark = pytest.mark.skipif(shutil.which("sinfo") is None, reason="there is no Slurm")

def sinfo():
    return subprocess.run(["sinfo", "--noheader"], check=True, capture_output=True, text=True).stdout

@pytest.fixture(scope="session")
def partitions():
    return sinfo()

def setup_module():
    assert "debug" in sinfo()

def test_fixture_of_the_session(partitions):
    assert "debug" in partitions

class TestOfUnittest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        assert "debug" in sinfo()

    def test_it(self):
        assert "debug" in sinfo()

def documented():
    '''
    >>> "debug" in sinfo()
    True
    '''
"""


def test_foreign_suite_finds_the_commands_wherever_it_looks(slurm_release: Release, tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(OLDER)

    done = run([*foreign_suite(slurm_release), "--doctest-modules"], tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_command_of_a_module_that_is_imported_says_that_the_cluster_is_yet_to_come(
    slurm_release: Release, tmp_path: Path
) -> None:
    (tmp_path / "test_theirs.py").write_text("import subprocess\nsubprocess.run(['sinfo'], check=True)\n")

    done = run(foreign_suite(slurm_release), tmp_path)

    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "sinfo: there is no cluster yet" in done.stdout, done.stdout
