"""SlurmAppManager: the jobs of sessions, under the seed's method names."""

from __future__ import annotations

import asyncio
import socket
from typing import TypedDict

from app_sessions.applications import Application, Applications
from app_sessions.database import Database
from app_sessions.errors import SlurmError
from app_sessions.models import SessionRow
from app_sessions.slurm.jobs import Slurm, SlurmJob, Submission, job_name


class JobStatusInfo(TypedDict):
    """What is known of a session's job; `status` is Slurm's word, UNKNOWN where slurmctld has forgotten the job."""

    job_id: int | None
    status: str
    node: str
    node_ip: str
    reason: str


class SlurmAppManager:
    """Submits, finds and cancels the jobs of sessions, each as the session's owner.

    Args:
        slurm: how Slurm is spoken to.
        applications: what can be started.
        database: where the sessions are.

    Example:
        >>> manager = SlurmAppManager(Commands(), applications, database)  # doctest: +SKIP
        >>> await manager.submit_app_job("1a2b-3c", "gedit", 6080)  # doctest: +SKIP
        7
    """

    def __init__(self, slurm: Slurm, applications: Applications, database: Database) -> None:
        self.slurm, self._applications, self._database = slurm, applications, database

    async def submit_app_job(self, session_id: str, app_id: str, vnc_port: int) -> int:
        """Submit the job of a session's present run, and return its id.

        Args:
            session_id: a session of the database.
            app_id: an application.
            vnc_port: where websockify should listen; the job takes another port where that one is taken.

        Raises:
            SlurmError: there is no such application, or Slurm refuses.
            SlurmAwayError: Slurm does not answer.
        """
        app = self._applications.get(app_id)
        if app is None:
            raise SlurmError(f"there is no application {app_id} any more")
        row = await self._row(session_id)
        return await self.slurm.submit(
            Submission(
                user=row.owner,
                name=job_name(session_id, row.run),
                script=app.job_script,
                partition=app.partition,
                nodes=app.nodes,
                cpus_per_task=app.cpus_per_task,
                memory_mib=app.memory_mib,
                minutes=app.minutes,
                environment={
                    **app.environment,
                    "SESSION_ID": session_id,
                    "VNC_PORT": str(vnc_port),
                    "APP_ID": app_id,
                    "APP_IMAGE": app.image_path,
                    "GEOMETRY": row.geometry,
                    "APP_SESSION_PASSWORD": row.password,
                },
                output=output_path(session_id),
            )
        )

    async def check_partition(self, app: Application) -> None:
        """See whether an application's job could begin.

        Raises:
            SlurmError: its partition is missing or down, or none of its nodes can run a job; says what to do.
            SlurmAwayError: Slurm does not answer.
        """
        partition = await self.slurm.partition(app.partition)
        if partition is None:
            raise SlurmError(
                f"there is no partition {app.partition}, in which {app.title} runs: an administrator adds it"
            )
        if partition.trouble:
            raise SlurmError(f"{app.title} cannot start: {partition.trouble}")

    async def cancel_job(self, session_id: str) -> bool:
        """Cancel every job of a session that is not over; says whether there was one.

        Raises:
            SlurmAwayError: Slurm does not answer.
        """
        row = await self._row(session_id)
        alive = [job for job in await self.slurm.jobs() if job.alive and is_of(job, session_id, row.owner)]
        for job in alive:
            await self.slurm.cancel(job.job_id, job.user)
        return bool(alive)

    async def get_job_status_info(self, session_id: str) -> JobStatusInfo:
        """What Slurm says of a session's job now.

        Raises:
            SlurmAwayError: Slurm does not answer.
        """
        row = await self._row(session_id)
        job = await self._get_job_status(row.job_id) if row.job_id else None
        if job is None:
            return JobStatusInfo(job_id=row.job_id, status="UNKNOWN", node="", node_ip="", reason="")
        node_ip = await self._get_node_ip(job.node) if job.node else ""
        return JobStatusInfo(job_id=job.job_id, status=job.state, node=job.node, node_ip=node_ip, reason=job.reason)

    async def _get_job_status(self, job_id: int) -> SlurmJob | None:
        return next((job for job in await self.slurm.jobs() if job.job_id == job_id), None)

    async def _get_node_ip(self, node_name: str) -> str:
        """The address of a node, as this host resolves what Slurm calls it.

        Raises:
            SlurmError: its name is not known here.
        """
        name = await self.slurm.node_address(node_name)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise SlurmError(f"the address of {node_name}, {name}, is not known on this host: {error}") from None
        return str(found[0][4][0])

    async def _row(self, session_id: str) -> SessionRow:
        return await self._database.reading(lambda session: session.get_one(SessionRow, session_id))


def is_of(job: SlurmJob, session_id: str, owner: str) -> bool:
    """Whether a job is one of a session's: anybody may give a job any name, but nobody another owner."""
    return job.session is not None and job.session[0] == session_id and job.user == owner


def output_path(session_id: str) -> str:
    """Where a job's output is, on its node."""
    return f"/tmp/app_session_{session_id}.log"  # noqa: S108  # with the session's random id, beside its info file
