"""The subcommands of the service: `service` runs it, `token` makes and revokes its tokens."""

from __future__ import annotations

import ssl
import sys
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import click
import uvicorn

from slurm_observability.service import settings as configuration
from slurm_observability.service.app import Service, create_app
from slurm_observability.service.database import Database, DatabaseError
from slurm_observability.service.reconcile import Reconciler
from slurm_observability.service.scheduler import Slurmrestd
from slurm_observability.service.settings import Settings, SettingsError
from slurm_observability.service.tokens import Role, TokenError, Tokens, new, write_secret

#: The exit status for a setting that is wrong: nothing was started.
_WRONG = 2


def _end(message: object) -> NoReturn:
    click.echo(f"slurm-observability: {message}", err=True)
    sys.exit(_WRONG)


def build(settings: Settings) -> Service:
    """Make a service: its database brought up to date, what is true now loaded, its look at Slurm prepared.

    Args:
        settings: what it is told.

    Raises:
        DatabaseError: the database cannot be used.
        TokenError: the file of tokens cannot be used.
    """
    if settings.given_database_url is None:
        try:
            settings.state_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseError(
                f"OBSERVABILITY_STATE_FOLDER: {settings.state_folder} cannot be made: {error.strerror}"
            ) from error
    database = Database(settings.database_url)
    database.migrate()
    service = Service(settings, database)
    service.gate.tokens.all()
    with database.read() as session:
        service.board.load(session)
    slurmrestd = None
    if settings.scheduler_backend == "slurm":
        assert settings.slurm_base_url is not None
        slurmrestd = Slurmrestd(
            settings.slurm_base_url,
            settings.slurm_user,
            key_file=settings.slurm_jwt_key_file,
            token_file=settings.slurm_jwt_file,
            version=settings.slurm_api_version,
        )
    reconciler = Reconciler(
        database,
        service.board,
        slurmrestd,
        seconds=settings.reconcile_seconds,
        retention=timedelta(days=settings.retention_days),
    )
    service.scheduler, service.nudge = reconciler.status, reconciler.nudge
    service.on_start, service.on_stop = reconciler.start, reconciler.stop
    return service


@click.command()
def service() -> None:
    """Run the service; its settings are environment variables, which the README lists."""
    try:
        settings = configuration.load()
        if settings.tls_cert_file is not None:
            _check_tls(settings)
        made = build(settings)
    except (SettingsError, DatabaseError, TokenError) as error:
        _end(error)
    uvicorn.run(
        create_app(made),
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        # A log line for each sample of each node would bury the others.
        access_log=False,
        server_header=False,
        # A node's agent keeps its connection between two samples.
        timeout_keep_alive=75,
    )


def _check_tls(settings: Settings) -> None:
    assert settings.tls_cert_file is not None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"OBSERVABILITY_TLS_CERT_FILE: {settings.tls_cert_file} and {settings.tls_key_file} are no certificate "
            f"with its key: {error}"
        ) from error


@click.group()
@click.option(
    "--tokens-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="the file of digests; by default OBSERVABILITY_TOKENS_FILE, else tokens.json in OBSERVABILITY_STATE_FOLDER",
)
@click.pass_context
def token(context: click.Context, tokens_file: Path | None) -> None:
    """Make, list and revoke the tokens by which callers are known; a running service heeds it at once."""
    if tokens_file is None:
        try:
            # Of all settings this needs the file's place only; others may be wrong here.
            tokens_file = configuration.Places().tokens_file
        except ValueError as error:
            _end(error)
    context.obj = Tokens(tokens_file)


@token.command()
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="what it is good for")
@click.option("--name", help="whose it is; the role if not given")
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="where to write the token, readable by its owner alone; or with --existing, to read it",
)
@click.option("--existing", is_flag=True, help="take the token that the file has, in place of a new one")
@click.pass_obj
def create(tokens: Tokens, role: str, name: str | None, path: Path, existing: bool) -> None:
    """Make a token, and write it to a file."""
    try:
        if existing:
            tokens.add(name or role, Role(role), _read(path))
        else:
            secret = new()
            write_secret(path, secret)
            try:
                tokens.add(name or role, Role(role), secret)
            except TokenError:
                path.unlink()
                raise
    except TokenError as error:
        _end(error)
    click.echo(f"the token {name or role} of the role {role} is in {path}")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"{path} cannot be read: {error}") from error


@token.command("list")
@click.pass_obj
def list_tokens(tokens: Tokens) -> None:
    """List the tokens by name, role and age."""
    try:
        for one in tokens.all():
            click.echo(f"{one.name}\t{one.role}\t{one.created:%Y-%m-%d %H:%M} UTC")
    except TokenError as error:
        _end(error)


@token.command()
@click.argument("name")
@click.pass_obj
def revoke(tokens: Tokens, name: str) -> None:
    """Take a token back."""
    try:
        tokens.revoke(name)
    except TokenError as error:
        _end(error)
    click.echo(f"the token {name} is revoked")
