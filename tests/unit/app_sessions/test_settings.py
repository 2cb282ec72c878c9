"""Settings and applications: one sentence for each that is wrong, before anything listens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from app_sessions import settings
from app_sessions.applications import Application, Applications, ApplicationsError, minutes
from app_sessions.cli import main
from app_sessions.settings import Settings, SettingsError
from click.testing import CliRunner

from slurm_testbed import data

SHIPPED = data.images() / "app-sessions" / "rootfs" / "etc" / "app-sessions" / "applications.yaml"
SCRIPT = data.images() / "app-sessions" / "slurm_jobs" / "vnc_job.sh"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, applications: Path) -> dict[str, str]:
    """An environment that submits by slurmrestd, and nothing of this machine's."""
    for name in list(os.environ):
        if name.startswith(("APP_SESSIONS_", "SLURM_", "DATABASE_")):
            monkeypatch.delenv(name)
    key = tmp_path / "jwt.key"
    key.write_bytes(b"k" * 32)
    return {
        "APP_SESSIONS_SUBMIT": "slurmrestd",
        "APP_SESSIONS_APPLICATIONS_FILE": str(applications),
        "APP_SESSIONS_STATE_FOLDER": str(tmp_path / "state"),
        "SLURM_BASE_URL": "http://slurm:6820",
        "SLURM_JWT_KEY_FILE": str(key),
        "DATABASE_URL": "postgres://apps:very-secret@postgres/apps",
    }


def load(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of an environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return settings.load()


def test_nothing_set_is_sqlite_and_sbatch(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    read = load(dict.fromkeys(environment, ""), monkeypatch)

    assert (read.submit, read.database_url) == ("sbatch", "sqlite:////var/lib/app-sessions/app-sessions.db")
    assert read.admins == frozenset()


def test_password_of_the_database_is_not_shown(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    read = load(environment, monkeypatch)

    assert read.database_url == "postgresql+psycopg://apps:very-secret@postgres/apps"
    assert "very-secret" not in repr(read)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"APP_SESSIONS_SUBMIT": "qsub"}, "APP_SESSIONS_SUBMIT: "),
        ({"SLURM_BASE_URL": ""}, "SLURM_BASE_URL: APP_SESSIONS_SUBMIT=slurmrestd needs it"),
        ({"SLURM_BASE_URL": "slurm:6820"}, "SLURM_BASE_URL: is no http:// or https:// address"),
        ({"SLURM_JWT_KEY_FILE": ""}, "SLURM_JWT_KEY_FILE: APP_SESSIONS_SUBMIT=slurmrestd needs it"),
        ({"SLURM_JWT_KEY_FILE": "/no/key"}, "SLURM_JWT_KEY_FILE: /no/key cannot be read: No such file or directory"),
        ({"SLURM_API_VERSION": "41"}, "SLURM_API_VERSION: "),
        ({"DATABASE_URL": "mysql://u:very-secret@h/d"}, "DATABASE_URL: is of mysql; postgres:// and sqlite:/// are"),
        ({"DATABASE_URL": "very-secret"}, "DATABASE_URL: is no database's address"),
        ({"APP_SESSIONS_PORT": "0"}, "APP_SESSIONS_PORT: "),
        ({"APP_SESSIONS_VNC_PORT": "80"}, "APP_SESSIONS_VNC_PORT: "),
        ({"APP_SESSIONS_VNC_PORT": "65535"}, "APP_SESSIONS_VNC_PORTS: 100 from APP_SESSIONS_VNC_PORT=65535 on go "),
        ({"APP_SESSIONS_VNC_PORT": "65302"}, "APP_SESSIONS_VNC_PORTS: 100 from APP_SESSIONS_VNC_PORT=65302 on go "),
        ({"APP_SESSIONS_SESSIONS_PER_USER": "0"}, "APP_SESSIONS_SESSIONS_PER_USER: "),
        ({"APP_SESSIONS_START_SECONDS": "-1"}, "APP_SESSIONS_START_SECONDS: "),
        ({"APP_SESSIONS_PAM_SERVICE": "../login"}, "APP_SESSIONS_PAM_SERVICE: "),
        ({"APP_SESSIONS_TLS_CERT_FILE": "/c"}, "APP_SESSIONS_TLS_CERT_FILE: TLS needs it and"),
    ],
)
def test_wrong_setting_is_named_in_one_sentence_and_nothing_starts(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, change: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        load({**environment, **change}, monkeypatch)
    ended = CliRunner().invoke(main, ["service"])

    assert str(error.value).startswith(said)
    assert (ended.exit_code, ended.output) == (2, f"app-sessions: {error.value}\n")
    assert "very-secret" not in ended.output


def test_last_port_that_is_given_is_the_last_that_the_job_takes(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = load({**environment, "APP_SESSIONS_VNC_PORT": "65301"}, monkeypatch)

    assert f"$VNC_PORT -le {read.first_vnc_port + read.vnc_ports - 1} ]]" in SCRIPT.read_text()


def test_database_that_is_away_at_the_start_ends_it_with_a_sentence(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load({**environment, "DATABASE_URL": "postgres://u:very-secret@127.0.0.1:1/d"}, monkeypatch)
    ended = CliRunner().invoke(main, ["service"])

    assert (ended.exit_code, "127.0.0.1" in ended.output) == (2, True), ended.output
    assert "very-secret" not in ended.output


@pytest.mark.row("V-11.2")
def test_shipped_applications_ask_for_what_the_seed_asks() -> None:
    text = SHIPPED.read_text().replace("/usr/share/app-sessions/slurm_jobs/vnc_job.sh", str(SCRIPT))
    gedit = Application.model_validate(
        {"id": "gedit", "title": "Text editor", "description": "GNOME's gedit, for scripts and notes."}
    )

    assert f'{SCRIPT}\n    partition: viz\n    cpus_per_task: 2\n    memory: 4G\n    time: "02:00:00"' in text
    assert (gedit.image_path, gedit.partition) == ("/opt/apptainers/apps/gedit/gedit.sif", "viz")
    assert (gedit.nodes, gedit.cpus_per_task, gedit.memory_mib, gedit.minutes) == (1, 2, 4096, 120)


@pytest.mark.row("V-11.2")
def test_another_application_comes_by_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "applications.yaml"
    path.write_text(
        f"applications: [{{id: paraview, title: ParaView, job_script: {SCRIPT}, memory: 512M, geometry: 1920x1080}}]"
    )

    (found,) = Applications.load(path).of("alice")

    assert (found.id, found.image_path) == ("paraview", "/opt/apptainers/apps/paraview/paraview.sif")
    assert (found.memory_mib, found.geometry) == (512, "1920x1080")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("applications: [", "is no YAML"),
        ("applications: 7", "applications: "),
        ("apps: []", "applications: Field required"),
        ("applications: [{id: gedit}]", "applications.0.title: Field required"),
        ("applications: [{id: Gedit, title: x}]", "applications.0.id: "),
        ("applications: [{id: a, title: x}, {id: a, title: y}]", "a is there twice"),
        ("applications: [{id: a, title: x, time: soon}]", "applications.0.time: soon is no time"),
        ("applications: [{id: a, title: x, memory: much}]", "applications.0.memory: "),
        ("applications: [{id: a, title: x, geometry: big}]", "applications.0.geometry: "),
        ("applications: [{id: a, title: x, image: '/a;rm'}]", "applications.0.image: "),
        ("applications: [{id: a, title: x, environment: {VNC_PORT: '1'}}]", "VNC_PORT is set by the service"),
        ("applications: [{id: a, title: x, job_script: /no/script}]", "a: /no/script: No such file"),
    ],
)
def test_wrong_application_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "applications.yaml"
    path.write_text(text)

    with pytest.raises(ApplicationsError) as error:
        Applications.load(path)

    assert said in str(error.value)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ApplicationsError, match="none.yaml cannot be read: No such file"):
        Applications.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("02:00:00", 120),
        ("90", 90),
        ("30:00", 30),
        ("1:30", 2),
        ("1-00", 1440),
        ("1-12:30", 2190),
        ("2-00:00:01", 2881),
    ],
)
def test_time_limit_is_read_as_sbatch_reads_it(text: str, found: int) -> None:
    assert minutes(text) == found


@pytest.mark.parametrize("text", ["", "0", "00:00:30", "two hours", "1:2:3:4"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time|less than a minute"):
        minutes(text)
