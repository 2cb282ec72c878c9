"""The service's settings: environment variables, checked before anything listens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app_sessions.errors import AppSessionsError

_PREFIX = "APP_SESSIONS_"
#: slurm_jobs/vnc_job.sh takes none above: it tries a hundred from there on.
_LAST_VNC_PORT = 65400


class SettingsError(AppSessionsError):
    """A setting is wrong; the text names it, and says what it may be."""


def _ours(name: str) -> str:
    return _PREFIX + name


class Settings(BaseSettings):
    """What the service is told by its environment; an empty variable counts as none.

    Example:
        >>> Settings(APP_SESSIONS_STATE_FOLDER="/srv").database_url
        'sqlite:////srv/app-sessions.db'
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    state_folder: Annotated[Path, Field(alias=_ours("STATE_FOLDER"), description="for SQLite's file")] = Path(
        "/var/lib/app-sessions"
    )
    applications_file: Annotated[
        Path, Field(alias=_ours("APPLICATIONS_FILE"), description="the applications, YAML")
    ] = Path("/etc/app-sessions/applications.yaml")
    given_database_url: Annotated[
        SecretStr | None,
        Field(alias="DATABASE_URL", description="postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=…; else SQLite"),
    ] = None
    submit: Annotated[
        Literal["sbatch", "slurmrestd"],
        Field(alias=_ours("SUBMIT"), description="how jobs are submitted, as their users"),
    ] = "sbatch"
    slurm_base_url: Annotated[
        str | None, Field(alias="SLURM_BASE_URL", description="where slurmrestd listens, e.g. http://slurm:6820")
    ] = None
    slurm_api_version: Annotated[
        str | None,
        Field(
            alias="SLURM_API_VERSION",
            pattern=r"^v\d+\.\d+\.\d+$",
            description="e.g. v0.0.41; the newest that slurmrestd serves",
        ),
    ] = None
    slurm_user: Annotated[
        str, Field(alias="SLURM_USER", description="who looks at the queue by slurmrestd: sees everybody's jobs")
    ] = "slurm"
    slurm_jwt_key_file: Annotated[
        Path | None, Field(alias="SLURM_JWT_KEY_FILE", description="Slurm's key, from which users' tokens are made")
    ] = None
    host: Annotated[str, Field(alias=_ours("HOST"), description="the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(alias=_ours("PORT"), ge=1, le=65535, description="the port to listen on")] = 8080
    tls_cert_file: Annotated[
        Path | None, Field(alias=_ours("TLS_CERT_FILE"), description="the certificate with its chain, PEM")
    ] = None
    tls_key_file: Annotated[Path | None, Field(alias=_ours("TLS_KEY_FILE"), description="its key, PEM")] = None
    given_origins: Annotated[
        str,
        Field(
            alias=_ours("ORIGINS"),
            description="addresses of the page behind a proxy that changes Host, e.g. https://apps.example.org",
        ),
    ] = ""
    pam_service: Annotated[
        str, Field(alias=_ours("PAM_SERVICE"), pattern=r"^[a-z][a-z0-9_-]*$", description="a name in /etc/pam.d")
    ] = "app-sessions"
    given_admins: Annotated[
        str, Field(alias=_ours("ADMINS"), description="users who list and end everybody's sessions, by spaces")
    ] = ""
    sessions_per_user: Annotated[
        int, Field(alias=_ours("SESSIONS_PER_USER"), ge=1, description="live sessions of one user")
    ] = 3
    sessions_total: Annotated[
        int, Field(alias=_ours("SESSIONS_TOTAL"), ge=1, description="live sessions of all users")
    ] = 50
    first_vnc_port: Annotated[
        int, Field(alias=_ours("VNC_PORT"), ge=1024, le=65535, description="the first port that jobs are given")
    ] = 6080
    vnc_ports: Annotated[
        int, Field(alias=_ours("VNC_PORTS"), ge=1, le=10000, description="how many ports, from that one on")
    ] = 100
    start_seconds: Annotated[
        float,
        Field(alias=_ours("START_SECONDS"), gt=0, description="until a display must answer, once its job runs"),
    ] = 90
    connection_seconds: Annotated[
        float, Field(alias=_ours("CONNECTION_SECONDS"), gt=0, description="that a token for a connection is good for")
    ] = 30
    login_seconds: Annotated[
        int, Field(alias=_ours("LOGIN_SECONDS"), ge=60, description="that a login is good for")
    ] = 12 * 3600
    requests_per_minute: Annotated[
        int, Field(alias=_ours("REQUESTS_PER_MINUTE"), ge=1, description="of one user from one address; more: 429")
    ] = 600
    body_bytes: Annotated[
        int, Field(alias=_ours("BODY_BYTES"), ge=1024, description="of a request at most; more: 413")
    ] = 65536
    retention_days: Annotated[
        float, Field(alias=_ours("RETENTION_DAYS"), gt=0, description="how long ended sessions are listed")
    ] = 7

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
        if self.submit == "slurmrestd":
            if self.slurm_base_url is None:
                raise ValueError("SLURM_BASE_URL: APP_SESSIONS_SUBMIT=slurmrestd needs it, e.g. http://slurm:6820")
            if self.slurm_jwt_key_file is None:
                raise ValueError("SLURM_JWT_KEY_FILE: APP_SESSIONS_SUBMIT=slurmrestd needs it, to submit as users")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("APP_SESSIONS_TLS_CERT_FILE: TLS needs it and APP_SESSIONS_TLS_KEY_FILE, or neither")
        if self.first_vnc_port + self.vnc_ports - 1 > _LAST_VNC_PORT:
            raise ValueError(
                f"APP_SESSIONS_VNC_PORTS: {self.vnc_ports} from APP_SESSIONS_VNC_PORT={self.first_vnc_port} on go "
                f"beyond {_LAST_VNC_PORT}, the last that a job takes"
            )
        for name, path in (
            ("SLURM_JWT_KEY_FILE", self.slurm_jwt_key_file),
            ("APP_SESSIONS_TLS_CERT_FILE", self.tls_cert_file),
            ("APP_SESSIONS_TLS_KEY_FILE", self.tls_key_file),
        ):
            if path is not None:
                try:
                    path.open("rb").close()
                except OSError as error:
                    raise ValueError(f"{name}: {path} cannot be read: {error.strerror}") from None
        return self

    @property
    def admins(self) -> frozenset[str]:
        """Who lists and ends everybody's sessions."""
        return frozenset(self.given_admins.split())

    @property
    def origins(self) -> frozenset[str]:
        """Where else than at its Host the page is."""
        return frozenset(origin.rstrip("/") for origin in self.given_origins.split())

    @property
    def database_url(self) -> str:
        """The address as SQLAlchemy has it; it may hold a password."""
        if self.given_database_url is not None:
            return self.given_database_url.get_secret_value()
        return f"sqlite:///{self.state_folder / 'app-sessions.db'}"


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
