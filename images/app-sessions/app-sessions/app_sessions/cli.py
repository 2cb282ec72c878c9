"""The command app-sessions: `service` runs it, `try` starts one application and ends it, to see that all is well."""

from __future__ import annotations

import asyncio
import getpass
import logging
import ssl
import sys
import time
from typing import NoReturn

import click
import uvicorn

from app_sessions import __version__
from app_sessions import settings as configuration
from app_sessions.app import Service, create_app
from app_sessions.applications import Application, Applications, ApplicationsError
from app_sessions.audit import now
from app_sessions.database import Database, DatabaseError
from app_sessions.errors import SlurmError
from app_sessions.manager import SlurmAppManager
from app_sessions.models import SessionRow
from app_sessions.rfb import NoDisplayError, address, shake_hands
from app_sessions.sessions import new_password
from app_sessions.settings import Settings, SettingsError
from app_sessions.slurm.commands import Commands
from app_sessions.slurm.jobs import Slurm
from app_sessions.slurm.slurmrestd import Slurmrestd

#: The exit status for a setting that is wrong: nothing was started.
_WRONG = 2
#: Seconds between two looks of `try`.
_LOOK = 0.5


def _end(message: object, status: int = _WRONG) -> NoReturn:
    click.echo(f"app-sessions: {message}", err=True)
    sys.exit(status)


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Desktop applications as Slurm jobs, seen in the browser."""


def slurm_of(settings: Settings) -> Slurm:
    """The way to Slurm that the settings name."""
    if settings.submit == "sbatch":
        return Commands()
    assert settings.slurm_base_url is not None
    assert settings.slurm_jwt_key_file is not None
    return Slurmrestd(
        settings.slurm_base_url, settings.slurm_jwt_key_file, settings.slurm_user, settings.slurm_api_version
    )


def build(settings: Settings) -> Service:
    """Make a service: its applications read, its database claimed and brought up to date.

    Args:
        settings: what it is told.

    Raises:
        ApplicationsError: the file of applications is wrong.
        DatabaseError: the database cannot be used.
    """
    applications = Applications.load(settings.applications_file)
    if settings.given_database_url is None:
        try:
            settings.state_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise DatabaseError(
                f"APP_SESSIONS_STATE_FOLDER: {settings.state_folder} cannot be made: {error.strerror}"
            ) from error
    database = Database(settings.database_url)
    try:
        database.claim()
        database.migrate()
        return Service(settings, database, applications, slurm_of(settings))
    except DatabaseError:
        database.close()
        raise


@main.command()
def service() -> None:
    """Run the service; its settings are environment variables, which the README lists."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = configuration.load()
        if settings.tls_cert_file is not None:
            _check_tls(settings)
        made = build(settings)
    except (SettingsError, ApplicationsError, DatabaseError) as error:
        _end(error)
    try:
        uvicorn.run(
            create_app(made),
            host=settings.host,
            port=settings.port,
            ssl_certfile=settings.tls_cert_file,
            ssl_keyfile=settings.tls_key_file,
            # uvloop starts no process as another user.
            loop="asyncio",
            access_log=False,
            log_config=None,
            server_header=False,
            # What displays send is compressed already.
            ws_per_message_deflate=False,
            # Displays stay open for hours: the service does not wait for them when it is to end.
            timeout_graceful_shutdown=2,
        )
    finally:
        made.database.close()


def _check_tls(settings: Settings) -> None:
    assert settings.tls_cert_file is not None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"APP_SESSIONS_TLS_CERT_FILE: {settings.tls_cert_file} and {settings.tls_key_file} are no certificate "
            f"with its key: {error}"
        ) from error


@main.command("try")
@click.argument("app_id", default="gedit")
@click.option("--user", default=None, help="whose job it is; you, unless given")
@click.option("--session-id", default="test-session-001", show_default=True, help="the name of the session")
@click.option("--port", default=6080, show_default=True, help="where websockify should listen")
@click.option("--seconds", default=30.0, show_default=True, help="how long the job may take to start")
def try_out(app_id: str, user: str | None, session_id: str, port: int, seconds: float) -> None:
    """Submit an application's job, wait until its display answers, cancel it: with nothing of the service but this."""
    try:
        settings = configuration.load()
        applications = Applications.load(settings.applications_file)
    except (SettingsError, ApplicationsError) as error:
        _end(error)
    app = applications.get(app_id)
    if app is None:
        _end(f"there is no application {app_id} in {settings.applications_file}")
    try:
        asyncio.run(_Trial(settings, applications, session_id, app, user or getpass.getuser()).run(port, seconds))
    except (SlurmError, NoDisplayError) as error:
        click.echo(f"❌ {error}")
        sys.exit(1)


class _Trial:
    """The seed's integration test, with its lines."""

    def __init__(
        self, settings: Settings, applications: Applications, session_id: str, app: Application, user: str
    ) -> None:
        self._database = Database("sqlite:///:memory:")
        self._database.migrate()
        self._manager = SlurmAppManager(slurm_of(settings), applications, self._database)
        self._id, self._app, self._user, self._password = session_id, app, user, new_password()

    async def run(self, port: int, seconds: float) -> None:
        click.echo(
            f"=== Testing Slurm App Manager ===\nSession ID: {self._id}\nApp ID: {self._app.id}\nVNC Port: {port}\n"
        )
        with self._database.write() as session:
            session.add(
                SessionRow(
                    id=self._id,
                    owner=self._user,
                    app_id=self._app.id,
                    geometry=self._app.geometry,
                    asked_port=port,
                    password=self._password,
                    created_at=now(),
                )
            )
        await self._manager.check_partition(self._app)
        click.echo("Submitting Slurm job...")
        job_id = await self._manager.submit_app_job(self._id, self._app.id, port)
        with self._database.write() as session:
            session.get_one(SessionRow, self._id).job_id = job_id
        try:
            info = await self._manager.get_job_status_info(self._id)
            click.echo(f"✅ Job submitted successfully!\n   Job ID: {job_id}\n   Status: {info['status']}\n")
            await self._watch(job_id, seconds)
        finally:
            click.echo("Cancelling job...")
            cancelled = await self._manager.cancel_job(self._id)
            click.echo("✅ Job cancelled successfully\n" if cancelled else "the job has ended by itself\n")
        click.echo("=== Test Complete ===")

    async def _watch(self, job_id: int, seconds: float) -> None:
        click.echo(f"Waiting for job to start (max {seconds:g} seconds)...")
        began, told, last = time.monotonic(), "", "it did not tell a port"
        while time.monotonic() - began < seconds:
            job = await self._manager._get_job_status(job_id)
            if job is None or not job.alive:
                why = (job.problem or job.reason) if job else "Slurm does not know it"
                raise SlurmError(f"job {job_id} has ended: {job.state if job else 'gone'} ({why})")
            status = f"{job.state} on {job.node}" if job.node else f"{job.state} {job.reason}".rstrip()
            if status != told:
                click.echo(f"   [{time.monotonic() - began:.0f}s] Status: {status}")
                told = status
            if job.vnc_port is not None and job.node:
                node_ip = await self._manager._get_node_ip(job.node)
                url = address(node_ip, job.vnc_port)
                try:
                    await shake_hands(url, self._password)
                except NoDisplayError as error:
                    last = str(error)
                else:
                    click.echo(f"\n✅ Job is RUNNING!\n   Node: {job.node}\n   Node IP: {node_ip}\n   VNC URL: {url}\n")
                    return
            await asyncio.sleep(_LOOK)
        raise NoDisplayError(f"no display within {seconds:g} s: {last}")


if __name__ == "__main__":
    main()
