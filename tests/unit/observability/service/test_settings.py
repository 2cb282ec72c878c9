"""Settings: the seed's names, and one sentence for each that is wrong, before anything listens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from slurm_observability.cli import main
from slurm_observability.service import settings
from slurm_observability.service.settings import Settings, SettingsError


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment that asks Slurm, and nothing of this machine's."""
    for name in list(os.environ):
        if name.startswith(("OBSERVABILITY_", "SLURM_", "DATABASE_", "SCHEDULER_")):
            monkeypatch.delenv(name)
    key = tmp_path / "jwt.key"
    key.write_bytes(b"k" * 32)
    return {
        "SCHEDULER_BACKEND": "slurm",
        "SLURM_BASE_URL": "http://slurm:6820",
        "SLURM_API_VERSION": "v0.0.37",
        "SLURM_JWT_KEY_FILE": str(key),
        "DATABASE_URL": "postgres://hpc:password@postgres:5432/hpc_jobs?sslmode=disable",
        "OBSERVABILITY_STATE_FOLDER": str(tmp_path / "state"),
    }


def load(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of an environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return settings.load()


@pytest.mark.row("O-02.1", "O-02.2", "O-02.3")
def test_names_and_values_are_the_integration_guides(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = load(environment, monkeypatch)

    assert (read.scheduler_backend, read.slurm_base_url, read.slurm_api_version) == (
        "slurm",
        "http://slurm:6820",
        "v0.0.37",
    )
    assert read.database_url == "postgresql+psycopg://hpc:password@postgres:5432/hpc_jobs?sslmode=disable"
    assert "password" not in repr(read)


@pytest.mark.row("O-02.4")
def test_nothing_set_is_sqlite_without_slurm(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"SCHEDULER_BACKEND": "", "DATABASE_URL": "", "SLURM_BASE_URL": ""}
    read = load(empty, monkeypatch)

    assert read.scheduler_backend == "none"
    assert read.database_url == "sqlite:////var/lib/slurm-observability/observability.db"
    assert str(read.tokens_file) == "/var/lib/slurm-observability/tokens.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SCHEDULER_BACKEND": "pbs"}, "SCHEDULER_BACKEND: "),
        ({"SLURM_BASE_URL": ""}, "SLURM_BASE_URL: SCHEDULER_BACKEND=slurm needs it"),
        ({"SLURM_BASE_URL": "slurm:6820"}, "SLURM_BASE_URL: is no http:// or https:// address"),
        ({"SLURM_API_VERSION": "37"}, "SLURM_API_VERSION: "),
        ({"SLURM_JWT_KEY_FILE": ""}, "SLURM_JWT_KEY_FILE: SCHEDULER_BACKEND=slurm needs either it or SLURM_JWT_FILE"),
        ({"SLURM_JWT_FILE": "/x"}, "SLURM_JWT_KEY_FILE: SCHEDULER_BACKEND=slurm needs either it or SLURM_JWT_FILE"),
        ({"SLURM_JWT_KEY_FILE": "/no/key"}, "SLURM_JWT_KEY_FILE: /no/key cannot be read: No such file or directory"),
        ({"DATABASE_URL": "mysql://u:very-secret@h/d"}, "DATABASE_URL: is of mysql; postgres:// and sqlite:/// are"),
        ({"DATABASE_URL": "very-secret"}, "DATABASE_URL: is no database's address"),
        ({"OBSERVABILITY_PORT": "http"}, "OBSERVABILITY_PORT: "),
        ({"OBSERVABILITY_PORT": "0"}, "OBSERVABILITY_PORT: "),
        ({"OBSERVABILITY_TLS_CERT_FILE": "/c"}, "OBSERVABILITY_TLS_CERT_FILE: TLS needs it and"),
        ({"OBSERVABILITY_BODY_BYTES": "1"}, "OBSERVABILITY_BODY_BYTES: "),
        ({"OBSERVABILITY_REQUESTS_PER_MINUTE": "0"}, "OBSERVABILITY_REQUESTS_PER_MINUTE: "),
        ({"OBSERVABILITY_RETENTION_DAYS": "-1"}, "OBSERVABILITY_RETENTION_DAYS: "),
        ({"OBSERVABILITY_RECONCILE_SECONDS": "0"}, "OBSERVABILITY_RECONCILE_SECONDS: "),
        ({"OBSERVABILITY_METRICS_OPEN": "perhaps"}, "OBSERVABILITY_METRICS_OPEN: "),
    ],
)
def test_wrong_setting_is_named_in_one_sentence_and_nothing_starts(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, change: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        load({**environment, **change}, monkeypatch)
    ended = CliRunner().invoke(main, ["service"])

    assert str(error.value).startswith(said)
    assert (ended.exit_code, ended.output) == (2, f"slurm-observability: {error.value}\n")
    assert "very-secret" not in ended.output


@pytest.mark.row("O-14.2")
def test_certificate_that_is_none_is_said_before_anything_listens(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "c.pem").write_text("no certificate")
    tls = {"OBSERVABILITY_TLS_CERT_FILE": f"{tmp_path}/c.pem", "OBSERVABILITY_TLS_KEY_FILE": f"{tmp_path}/c.pem"}
    load({**environment, **tls, "DATABASE_URL": ""}, monkeypatch)
    ended = CliRunner().invoke(main, ["service"])

    assert ended.exit_code == 2
    assert "are no certificate with its key" in ended.output
    assert not (tmp_path / "state").exists()


def test_database_that_is_away_at_the_start_ends_it_with_a_sentence(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load({**environment, "DATABASE_URL": "postgres://u:very-secret@127.0.0.1:1/d"}, monkeypatch)
    ended = CliRunner().invoke(main, ["service"])

    assert ended.exit_code == 2
    assert "127.0.0.1" in ended.output
    assert "very-secret" not in ended.output


def test_tokens_file_that_is_none_ends_it_with_a_sentence(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tokens.json").write_text("{}[")
    load({**environment, "DATABASE_URL": "", "OBSERVABILITY_TOKENS_FILE": f"{tmp_path}/tokens.json"}, monkeypatch)
    ended = CliRunner().invoke(main, ["service"])

    assert (ended.exit_code, "is no file of tokens" in ended.output) == (2, True), ended.output
