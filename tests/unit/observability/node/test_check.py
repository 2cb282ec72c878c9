"""What the check of a host's configuration says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from slurm_observability.cli import main
from slurm_observability.node.agent import Settings
from slurm_observability.node.check import examine
from slurm_observability.node.configuration import cluster_name, memory_limit_is_allocation, parse
from slurm_observability.node.spool import Spool

from tests.unit.observability.node.conftest import SCRIPTS, FakeService, Tree

SLURM_CONF = """\
ClusterName=testbed
Prolog={folder}/prolog.d/*
Epilog={folder}/epilog.d/*
PrologSlurmctld={folder}/prolog.slurmctld.sh
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup,task/affinity
JobAcctGatherType=jobacct_gather/cgroup
PrologFlags=Alloc,Contain
"""
CGROUP_CONF = "ConstrainRAMSpace=yes\nConstrainSwapSpace=yes\nConstrainCores=yes\nConstrainDevices=yes\n"


@pytest.fixture
def settings(tmp_path: Path, tree: Tree, spool: Spool, service: FakeService) -> Settings:
    """A host on which everything fits."""
    (tmp_path / "slurm.conf").write_text(SLURM_CONF.format(folder=SCRIPTS))
    (tmp_path / "cgroup.conf").write_text(CGROUP_CONF)
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "token").chmod(0o400)
    tree.job_v1(12)
    service.answer = lambda _: (422, {}, b"{}")
    return Settings(
        url=service.url,
        spool=spool.root,
        token_file=tmp_path / "token",
        cgroup_root=tree.root,
        slurm_conf=tmp_path / "slurm.conf",
    )


def problems(settings: Settings) -> list[str]:
    return [finding.text for finding in examine(settings) if not finding.fits]


def change(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_where_everything_fits_there_is_no_problem(settings: Settings) -> None:
    assert problems(settings) == []


@pytest.mark.row("O-03.5")
def test_release_agent_is_named_as_rejected(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "cgroup.conf").write_text(f"{CGROUP_CONF}CgroupReleaseAgentDir=/etc/slurm/cgroup\n")

    [problem] = problems(settings)

    assert "CgroupReleaseAgentDir: today's Slurm rejects it" in problem


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("prolog.slurmctld.sh", "prolog.slurmctld.d/*", "slurmctld does not expand a pattern"),
        (f"{SCRIPTS}/epilog.d/*", "/nowhere/*", "no such file: every job fails"),
        (f"Prolog={SCRIPTS}/prolog.d/*\n", "", "Prolog=(not set): 50-observability.sh is not among them"),
        ("proctrack/cgroup", "proctrack/linuxproc", "ProctrackType=proctrack/linuxproc: without proctrack/cgroup"),
        ("task/cgroup,", "", "TaskPlugin=task/affinity: without task/cgroup"),
        ("jobacct_gather/cgroup", "jobacct_gather/linux", "JobAcctGatherType=jobacct_gather/linux"),
        (",Contain", "", "PrologFlags=Alloc: without contain"),
    ],
)
def test_slurm_conf_that_does_not_fit_is_named(settings: Settings, old: str, new: str, said: str) -> None:
    change(settings.slurm_conf, old, new)

    [problem] = problems(settings)

    assert said in problem


def test_script_that_is_not_executable_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "prolog.d").mkdir()
    for name in ("50-observability.sh", "60-other.sh"):
        (tmp_path / "prolog.d" / name).write_text("#!/bin/sh\n")
    (tmp_path / "prolog.d/50-observability.sh").chmod(0o755)
    change(settings.slurm_conf, f"{SCRIPTS}/prolog.d/*", f"{tmp_path}/prolog.d/*")

    [problem] = problems(settings)

    assert "60-other.sh: not executable" in problem


def test_cgroup_conf_that_constrains_nothing_is_named(settings: Settings) -> None:
    settings.slurm_conf.with_name("cgroup.conf").write_text("ConstrainCores=no\n")

    named = [problem.split("=")[0] for problem in problems(settings)]

    assert named == ["ConstrainRAMSpace", "ConstrainSwapSpace", "ConstrainCores", "ConstrainDevices"]


def test_missing_files_and_folders_are_named(settings: Settings, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    lost = replace(settings, slurm_conf=nothing, cgroup_root=nothing, spool=nothing, token_file=nothing)

    assert [text.split(": ")[0] for text in problems(lost)] == [
        str(nothing),
        str(nothing),
        f"{nothing}/new",
        str(nothing),
    ]


def test_spool_and_token_that_are_open_to_everybody_are_named(settings: Settings, spool: Spool) -> None:
    assert settings.token_file
    spool.new.chmod(0o777)
    settings.token_file.chmod(0o644)

    first, second = problems(settings)

    assert "everybody may write events" in first
    assert "others may read the token" in second


def test_refused_events_are_counted(settings: Settings, spool: Spool) -> None:
    (spool.refused / "1.json").write_text("{}")
    (spool.refused / "1.json.answer").write_text("422")

    [problem] = problems(settings)

    assert "1 records or events" in problem


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "does not accept the token"), (403, "does not accept the token"), (500, "cannot be used")],
)
def test_service_that_does_not_take_samples_is_named(
    settings: Settings, service: FakeService, status: int, said: str
) -> None:
    service.answer = lambda _: (status, {}, b"")

    [problem] = problems(settings)

    assert said in problem


def test_gpus_without_their_tool_are_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.slurm_conf.with_name("gres.conf").write_text("NodeName=n1 Name=gpu File=/dev/nvidia0\n")
    monkeypatch.setenv("PATH", "")

    [problem] = problems(settings)

    assert "neither nvidia-smi nor rocm-smi" in problem


# --- the command ---------------------------------------------------------------------------------------------


def arguments(settings: Settings) -> list[str]:
    return [
        *("--url", settings.url, "--token-file", str(settings.token_file), "--spool", str(settings.spool)),
        *("--cgroup-root", str(settings.cgroup_root), "--slurm-conf", str(settings.slurm_conf)),
    ]


def test_command_ends_with_1_where_something_does_not_fit(settings: Settings) -> None:
    fits = CliRunner().invoke(main, ["check", *arguments(settings)])
    settings.slurm_conf.with_name("cgroup.conf").write_text("CgroupReleaseAgentDir=/x\n")
    does_not = CliRunner().invoke(main, ["check", *arguments(settings)])

    assert (fits.exit_code, "problem" in fits.output) == (0, False)
    assert does_not.exit_code == 1
    assert "problem  " in does_not.output


@pytest.mark.row("O-02.5")
@pytest.mark.parametrize("name", ["OBSERVABILITY_URL", "OBSERVABILITY_API_URL"])
def test_environment_says_where_the_service_is(settings: Settings, service: FakeService, name: str) -> None:
    CliRunner().invoke(main, ["check", *arguments(settings)[2:]], env={name: service.url})

    assert [request.path for request in service.requests] == ["/v1/samples"]


@pytest.mark.parametrize(
    ("option", "said"),
    [(("--url", "observability:8080"), "begins with https:// or http://"), (("--interval", "0"), "--interval")],
)
def test_wrong_setting_is_one_sentence(settings: Settings, option: tuple[str, str], said: str) -> None:
    done = CliRunner().invoke(main, ["agent", *option])

    assert done.exit_code == 2
    assert said in done.output


# --- configuration files -------------------------------------------------------------------------------------


def test_configuration_is_read_as_slurm_reads_it(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text("# ClusterName=no\nclustername=real # yes\nInclude more.conf\nA=1 \\\n B=2\n")
    (tmp_path / "more.conf").write_text('Epilog="/etc/e.d/*"\n')

    assert parse(tmp_path / "slurm.conf") == {"clustername": "real", "epilog": "/etc/e.d/*", "a": "1", "b": "2"}
    assert cluster_name(tmp_path / "slurm.conf") == "real"


@pytest.mark.parametrize(
    ("text", "limit_mib", "is_it"),
    [
        ("ConstrainRAMSpace=yes", 200, True),
        ("ConstrainRAMSpace=yes", None, True),
        ("ConstrainRAMSpace=yes\nAllowedRAMSpace=100", 200, True),
        ("ConstrainRAMSpace=yes\nAllowedRAMSpace=90", 200, False),
        ("ConstrainRAMSpace=yes", 30, False),
        ("ConstrainRAMSpace=yes\nMinRAMSpace=300", 200, False),
        ("ConstrainRAMSpace=no", 200, False),
        ("", 200, False),
    ],
)
def test_limit_is_the_allocation_only_where_slurm_made_it_so(
    tmp_path: Path, text: str, limit_mib: int | None, is_it: bool
) -> None:
    (tmp_path / "cgroup.conf").write_text(text)

    limit = None if limit_mib is None else limit_mib * 2**20
    assert memory_limit_is_allocation(tmp_path / "slurm.conf", limit) is is_it
