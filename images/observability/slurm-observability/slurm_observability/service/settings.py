"""The service's settings: environment variables, checked before anything listens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = "OBSERVABILITY_"


class SettingsError(Exception):
    """A setting is wrong; the text names it, and says what it may be."""


def _ours(name: str) -> str:
    return _PREFIX + name


class Places(BaseSettings):
    """Where the service keeps its files."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    state_folder: Annotated[
        Path, Field(alias=_ours("STATE_FOLDER"), description="for SQLite's file and the tokens")
    ] = Path("/var/lib/slurm-observability")
    given_tokens_file: Annotated[
        Path | None, Field(alias=_ours("TOKENS_FILE"), description="the digests of tokens; tokens.json beside SQLite's")
    ] = None

    @property
    def tokens_file(self) -> Path:
        """The file of the tokens' digests."""
        return self.given_tokens_file or self.state_folder / "tokens.json"


class Settings(Places):
    """What the service is told by its environment; an empty variable counts as none.

    Example:
        >>> Settings(SCHEDULER_BACKEND="none", OBSERVABILITY_STATE_FOLDER="/srv").database_url
        'sqlite:////srv/observability.db'
    """

    scheduler_backend: Annotated[
        Literal["slurm", "none"], Field(alias="SCHEDULER_BACKEND", description="whether Slurm is asked by slurmrestd")
    ] = "none"
    slurm_base_url: Annotated[
        str | None, Field(alias="SLURM_BASE_URL", description="where slurmrestd listens, e.g. http://slurm:6820")
    ] = None
    slurm_api_version: Annotated[
        str | None,
        Field(
            alias="SLURM_API_VERSION",
            pattern=r"^v\d+\.\d+\.\d+$",
            description="e.g. v0.0.40; the newest that slurmrestd serves",
        ),
    ] = None
    slurm_user: Annotated[
        str, Field(alias="SLURM_USER", description="whose token it is; an operator sees everybody's jobs")
    ] = "slurm"
    slurm_jwt_key_file: Annotated[
        Path | None, Field(alias="SLURM_JWT_KEY_FILE", description="Slurm's key; tokens are made from it as needed")
    ] = None
    slurm_jwt_file: Annotated[
        Path | None, Field(alias="SLURM_JWT_FILE", description="a token, read anew whenever the file changes")
    ] = None
    reconcile_seconds: Annotated[
        float,
        Field(alias=_ours("RECONCILE_SECONDS"), ge=1, le=3600, description="how often Slurm is asked"),
    ] = 5
    given_database_url: Annotated[
        SecretStr | None,
        Field(alias="DATABASE_URL", description="postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=…; else SQLite"),
    ] = None
    host: Annotated[str, Field(alias=_ours("HOST"), description="the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(alias=_ours("PORT"), ge=1, le=65535, description="the port to listen on")] = 8080
    tls_cert_file: Annotated[
        Path | None, Field(alias=_ours("TLS_CERT_FILE"), description="the certificate with its chain, PEM")
    ] = None
    tls_key_file: Annotated[Path | None, Field(alias=_ours("TLS_KEY_FILE"), description="its key, PEM")] = None
    metrics_open: Annotated[bool, Field(alias=_ours("METRICS_OPEN"), description="yes: /metrics needs no token")] = (
        False
    )
    requests_per_minute: Annotated[
        int,
        Field(
            alias=_ours("REQUESTS_PER_MINUTE"), ge=1, description="of one token from one address; more is answered 429"
        ),
    ] = 6000
    body_bytes: Annotated[
        int, Field(alias=_ours("BODY_BYTES"), ge=1024, description="of a request at most; more is answered 413")
    ] = 1024 * 1024
    retention_days: Annotated[
        float, Field(alias=_ours("RETENTION_DAYS"), gt=0, description="how long samples of the past are kept")
    ] = 30

    @field_validator("slurm_base_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("is no http:// or https:// address")
            return url.rstrip("/")
        return url

    @field_validator("given_database_url")
    @classmethod
    def _is_known(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is None:
            return None
        try:
            url = sa.make_url(secret.get_secret_value())
        except (sa.exc.ArgumentError, ValueError):
            raise ValueError("is no database's address") from None
        # postgres:// is what libpq and most compose files say.
        drivers = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
        if url.drivername not in {*drivers, *drivers.values()}:
            raise ValueError(f"is of {url.drivername}; postgres:// and sqlite:/// are known")
        url = url.set(drivername=drivers.get(url.drivername, url.drivername))
        return SecretStr(url.render_as_string(hide_password=False))

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.scheduler_backend == "slurm":
            if self.slurm_base_url is None:
                raise ValueError("SLURM_BASE_URL: SCHEDULER_BACKEND=slurm needs it, e.g. http://slurm:6820")
            if (self.slurm_jwt_key_file is None) == (self.slurm_jwt_file is None):
                raise ValueError(
                    "SLURM_JWT_KEY_FILE: SCHEDULER_BACKEND=slurm needs either it or SLURM_JWT_FILE, not both"
                )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("OBSERVABILITY_TLS_CERT_FILE: TLS needs it and OBSERVABILITY_TLS_KEY_FILE, or neither")
        for name, path in (
            ("SLURM_JWT_KEY_FILE", self.slurm_jwt_key_file),
            ("SLURM_JWT_FILE", self.slurm_jwt_file),
            ("OBSERVABILITY_TLS_CERT_FILE", self.tls_cert_file),
            ("OBSERVABILITY_TLS_KEY_FILE", self.tls_key_file),
        ):
            if path is not None:
                try:
                    path.open("rb").close()
                except OSError as error:
                    raise ValueError(f"{name}: {path} cannot be read: {error.strerror}") from None
        return self

    @property
    def database_url(self) -> str:
        """The address as SQLAlchemy has it; it may hold a password."""
        if self.given_database_url is not None:
            return self.given_database_url.get_secret_value()
        return f"sqlite:///{self.state_folder / 'observability.db'}"


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: one sentence that names the setting.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}: {said}" if name else said) from None
