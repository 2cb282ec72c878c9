"""The session service: sessions are started, watched, restarted and deleted, and the database says what should be.

Each live session has one task, which alone acts upon its job. Requests only write what is wanted, and wake it. All that
it needs to go on stands in the database before it acts, so that after a kill at any moment the next process goes on.
A job that no session accounts for, such as one that was submitted while this process died, is ended by `_sweep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import string
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Self

import jwt
import sqlalchemy as sa
from sqlalchemy.orm import Session as DatabaseSession

from app_sessions import schema
from app_sessions.applications import Application, Applications
from app_sessions.audit import SERVICE, Who, note, now
from app_sessions.database import Database
from app_sessions.errors import Refusal, SlurmAwayError, SlurmError
from app_sessions.events import Events
from app_sessions.manager import SlurmAppManager, is_of, output_path
from app_sessions.models import Login, SessionRow
from app_sessions.rfb import BINARY, NoDisplayError, PasswordRefusedError, address, shake_hands
from app_sessions.schema import Status
from app_sessions.settings import Settings
from app_sessions.slurm.jobs import Slurm, SlurmJob
from app_sessions.slurm.looks import Look, Looks

log = logging.getLogger(__name__)
#: Seconds between two looks at the queue: while a job is about to start or to end, else, and without live sessions.
_SOON, _LOOK, _IDLE = 0.25, 1.0, 10.0
#: Seconds between two attempts to reach a display, and after one that refused the password: five of those in a row
#: would lock everybody out (Xvnc(1), -BlacklistThreshold).
_ATTEMPT, _AFTER_REFUSAL = 0.1, 5.0
#: Seconds for which a job is expected to start at once, and between two looks whether it can start at all.
_START_SOON, _CHECK = 5.0, 10.0
#: Seconds after which a job that did not end is cancelled again, and that a request waits for the end.
_AGAIN, _PATIENCE = 30.0, 10.0
_CLEANING_SECONDS = 3600.0
_DELETE, _RESTART = "delete", "restart"
#: What VNC authentication takes is cut after eight characters.
_PASSWORD_LENGTH = 8
_PASSWORD_CHARACTERS = string.ascii_letters + string.digits
_TOKEN_USE = "display"  # noqa: S105  # no token
#: States of jobs that end a session as it should, and what is said of it.
_ENDS = {
    "CANCELLED": "its job was cancelled",
    "TIMEOUT": "its job reached its time limit",
    "DEADLINE": "its job reached its deadline",
    "PREEMPTED": "its job was preempted by another one",
}


class _Overtaken(Exception):  # noqa: N818  # no error: begin again
    """The session is no more as it was read."""


class AppSessionService:
    """The sessions of a cluster's users.

    Args:
        settings: what it was told.
        database: where it keeps them.
        applications: what can be started.
        slurm: how Slurm is spoken to.

    Example:
        >>> service = AppSessionService(settings, database, applications, Commands())  # doctest: +SKIP
        >>> async with service.running():  # doctest: +SKIP
        ...     session = await service.create_session("alice", "gedit")
    """

    def __init__(self, settings: Settings, database: Database, applications: Applications, slurm: Slurm) -> None:
        self.applications = applications
        self.events = Events()
        self.manager = SlurmAppManager(slurm, applications, database)
        self.looks = Looks(slurm.jobs, self._pace, self._sweep, self.tell_slurm)
        self._settings, self._database, self._slurm = settings, database, slurm
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self._woken: set[str] = set()
        self._hot: dict[str, float] = {}
        self._over: dict[str, asyncio.Event] = {}
        self._orphans: set[int] = set()
        self._installation = database.installation()

    # --- life -------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Go on with what the database has, for as long as the context lasts."""
        for session_id in await self._database.reading(_unfinished):
            self._wake(session_id)
        tasks = [asyncio.create_task(self.looks.run()), asyncio.create_task(self._clean())]
        try:
            yield self
        finally:
            self.events.close()
            tasks += self._drivers.values()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- what users ask for -------------------------------------------------------------------------------

    async def create_session(self, user: str, app_id: str, address: str = "") -> schema.Session:
        """Make a session, whose start begins at once.

        Args:
            user: whose it is.
            app_id: which application.
            address: where the request came from.

        Raises:
            Refusal: there is no such application, the user may not start it, or a quota is reached.
        """
        app = self.applications.get(app_id)
        if app is None:
            known = ", ".join(one.id for one in self.applications.of(user)) or "none"
            raise Refusal(404, "application_unknown", f"there is no application {app_id!r}; there are: {known}")
        await _check_may(app, user)

        def create(session: DatabaseSession) -> SessionRow:
            self._check_quota(session, user)
            row = SessionRow(
                id=f"{self._installation.name}-{secrets.token_hex(6)}",
                owner=user,
                app_id=app_id,
                geometry=app.geometry,
                asked_port=self._free_port(session),
                password=new_password(),
                created_at=now(),
            )
            session.add(row)
            session.flush()
            note(session, Who(user, address), "create", row, {"app_id": app_id})
            return row

        row = await self._database.writing(create)
        self._wake(row.id)
        return self._tell(row)

    async def list_sessions(self, user: str, *, everybody: bool = False) -> list[schema.Session]:
        """The sessions of a user, or of everybody, newest first."""

        def select(session: DatabaseSession) -> list[SessionRow]:
            query = sa.select(SessionRow).order_by(SessionRow.created_at.desc(), SessionRow.id)
            return list(session.scalars(query if everybody else query.where(SessionRow.owner == user)))

        return [self.view(row) for row in await self._database.reading(select)]

    async def get_session(self, session_id: str, user: str, *, admin: bool = False) -> schema.Session:
        """One session.

        Raises:
            Refusal: there is none, or it is somebody else's, which is the same to others.
        """
        return self.view(await self._database.reading(lambda session: _found(session, session_id, user, admin)))

    async def delete_session(
        self, session_id: str, user: str, *, admin: bool = False, address: str = ""
    ) -> schema.Session | None:
        """End a session's job, and forget the session once the job is gone.

        Returns:
            None once all is gone; the session while its job still ends, or Slurm does not answer.

        Raises:
            Refusal: there is none.
        """
        await self._want(session_id, _DELETE, user, admin=admin, address=address)
        await asyncio.wait({self._wake(session_id)}, timeout=_PATIENCE)
        row = await self._get(session_id)
        return self.view(row) if row else None

    async def restart_session(self, session_id: str, user: str, *, address: str = "") -> schema.Session:
        """End a session's job where it has one, and start it anew.

        Raises:
            Refusal: there is none, it is being deleted, the user may not start its application any more, or a quota is
                reached.
        """
        found = await self._database.reading(lambda session: _found(session, session_id, user, admin=False))
        if app := self.applications.get(found.app_id):
            await _check_may(app, user)
        row = await self._want(session_id, _RESTART, user, address=address)
        self._wake(session_id)
        return self._tell(row)

    async def sessions_left(self, user: str) -> int:
        """How many more sessions a user may have now."""

        def count(session: DatabaseSession) -> int:
            own, all_live = _live(session, user), _live(session)
            return max(0, min(self._settings.sessions_per_user - own, self._settings.sessions_total - all_live))

        return await self._database.reading(count)

    async def live_sessions(self) -> int:
        """How many sessions are live."""
        return await self._database.reading(_live)

    async def _want(
        self, session_id: str, wish: str, user: str, *, admin: bool = False, address: str = ""
    ) -> SessionRow:
        def want(session: DatabaseSession) -> SessionRow:
            row = _found(session, session_id, user, admin)
            if wish == _RESTART:
                if row.wish == _DELETE:
                    raise Refusal(409, "session_ending", "this session is being deleted: start a new one")
                if not Status(row.status).live:
                    self._check_quota(session, row.owner)
                row.status, row.message, row.reason = Status.CREATING, "", ""
                row.running_at = row.ended_at = None
            row.wish = wish
            note(session, Who(user, address), wish, row)
            return row

        return await self._database.writing(want)

    def _check_quota(self, session: DatabaseSession, user: str) -> None:
        if _live(session, user) >= self._settings.sessions_per_user:
            most = self._settings.sessions_per_user
            raise Refusal(
                409, "quota_reached", f"{user} has {most} live sessions, which is the most: stop one of them first"
            )
        if _live(session) >= self._settings.sessions_total:
            most = self._settings.sessions_total
            raise Refusal(
                409, "quota_reached", f"there are {most} live sessions of all users, which is the most: try again later"
            )

    def _free_port(self, session: DatabaseSession) -> int:
        """A port that no other live session was given, where there is one; on its node the job takes a free one."""
        first = self._settings.first_vnc_port
        query = sa.select(SessionRow.asked_port).where(SessionRow.status.in_(_LIVE))
        taken = set(session.scalars(query))
        return next((port for port in range(first, first + self._settings.vnc_ports) if port not in taken), first)

    # --- the display --------------------------------------------------------------------------------------

    async def connection(self, session_id: str, user: str, address: str = "") -> schema.Connection:
        """What a viewer of the owner's needs to connect, for a short time.

        Raises:
            Refusal: there is no such session of the user's, or it does not run.
        """
        at = now()
        expires_at = at + timedelta(seconds=self._settings.connection_seconds)

        def prepare(session: DatabaseSession) -> SessionRow:
            row = _found(session, session_id, user)
            _check_runs(row)
            note(session, Who(user, address), "connect", row)
            return row

        row = await self._database.writing(prepare)
        claims = {"sub": user, "sid": row.id, "run": row.run, "aud": _TOKEN_USE, "exp": expires_at}
        token = jwt.encode(claims, self._installation.key, algorithm="HS256")
        return schema.Connection(
            path=f"/api/app/sessions/{row.id}/websockify",
            protocols=[BINARY, token],
            password=row.password,
            geometry=row.geometry,
            expires_at=expires_at,
        )

    async def display(self, session_id: str, token: str) -> tuple[str, asyncio.Event]:
        """Where a session's display is, for one who has a token for it; and an event that is set once it ends.

        Raises:
            Refusal: the token is wrong or has expired, or the session does not run.
        """
        try:
            claims = jwt.decode(
                token,
                self._installation.key,
                algorithms=["HS256"],
                audience=_TOKEN_USE,
                options={"require": ["sub", "sid", "run", "exp"]},
            )
        except jwt.ExpiredSignatureError:
            raise Refusal(
                401, "connection_expired", "the token for this display has expired: open the session again"
            ) from None
        except jwt.InvalidTokenError:
            raise Refusal(401, "connection_unknown", "this is no token for a display: open the session again") from None
        if claims["sid"] != session_id:
            raise Refusal(401, "connection_unknown", "the token is for another session: open this one again")
        row = await self._database.reading(lambda session: _found(session, session_id, claims["sub"]))
        if row.run != claims["run"]:
            raise Refusal(401, "connection_expired", "the session was restarted meanwhile: open it again")
        _check_runs(row)
        assert row.vnc_port is not None
        return address(row.node_ip, row.vnc_port), self._over.setdefault(session_id, asyncio.Event())

    # --- each session's task ------------------------------------------------------------------------------

    def _wake(self, session_id: str) -> asyncio.Task[None]:
        """Have a session's task look at what the database has now."""
        self._woken.add(session_id)
        if session_id not in self._drivers:
            self._drivers[session_id] = asyncio.create_task(self._drive(session_id))
        self.looks.hurry()
        return self._drivers[session_id]

    async def _drive(self, session_id: str) -> None:
        try:
            while True:
                self._woken.discard(session_id)
                try:
                    busy = await self._step(session_id)
                except _Overtaken:
                    continue
                except Exception:
                    # Nothing is lost: what it has to do stands in the database, which may be away.
                    log.exception("the task of session %s failed; it begins again", session_id)
                    await asyncio.sleep(_LOOK)
                    continue
                if not busy and session_id not in self._woken:
                    return
        finally:
            self._hot.pop(session_id, None)
            del self._drivers[session_id]

    async def _step(self, session_id: str) -> bool:
        """Do what is next; False where nothing is."""
        row = await self._get(session_id)
        if row is None:
            return False
        if row.wish:
            await self._fulfil(row)
        elif row.status == Status.CREATING:
            await self._start_real_session(row)
        elif Status(row.status).live:
            await self._monitor_job_for_session(row)
        else:
            return False
        return True

    async def _start_real_session(self, row: SessionRow) -> None:
        """Submit the session's job, or find the one that a former process submitted."""
        if row.submitted:
            look = await self.looks.fresh()
            found = [job for job in _jobs_of(look, row) if job.session == (row.id, row.run)]
            if found:
                await self._change(row, "found", status=Status.PENDING, job_id=found[0].job_id)
                return
            # Should it come late, the sweep ends it: the next run's job has another name.
            row = await self._change(row, run=row.run + 1, submitted=False)
        try:
            await self.manager.check_partition(self._application(row))
            row = await self._change(row, submitted=True)
            job_id = await self.manager.submit_app_job(row.id, row.app_id, row.asked_port)
        except SlurmError as error:
            await self._finish(row, Status.ERROR, str(error))
            return
        self._expect(row.id, _START_SOON)
        await self._change(row, "submit", status=Status.PENDING, job_id=job_id)
        self.looks.hurry()

    async def _monitor_job_for_session(self, row: SessionRow) -> None:
        """Follow the session's job until it is over, or somebody wants something else."""
        look = await self.looks.fresh()
        checked = runs_since = time.monotonic()
        while True:
            current = await self._get(row.id)
            if current is None or current.wish or not Status(current.status).live:
                return
            row, job = current, look.jobs.get(current.job_id or 0)
            if end := _end_of(row, job):
                await self._finish(row, *end)
                return
            assert job is not None
            if job.waits:
                runs_since = time.monotonic()
                if job.reason != row.reason:
                    await self._change(row, reason=job.reason)
                elif time.monotonic() - checked > _CHECK:
                    checked = time.monotonic()
                    await self._check_still_possible(row)
            elif row.status == Status.PENDING:
                await self._reach_display(row, job, runs_since + self._settings.start_seconds)
            look = await self.looks.next(look)

    async def _reach_display(self, row: SessionRow, job: SlurmJob, deadline: float) -> None:
        """Speak to the display of a job that runs; the session runs when it has taken the password."""
        self._expect(row.id, 2 * _LOOK)
        if job.problem:
            await self._finish(row, Status.ERROR, job.problem)
            return
        last = "its job did not tell a port"
        if not row.node_ip and job.node:
            try:
                node_ip = await self.manager._get_node_ip(job.node)
            except SlurmAwayError:
                return  # the next look comes when it answers
            except SlurmError as error:
                await self._finish(row, Status.ERROR, str(error))
                return
            row = await self._change(row, node=job.node, node_ip=node_ip, reason="")
        # Not before the job has told it: on the port that it was given another session's display may answer.
        if job.vnc_port is not None and row.node_ip:
            while not self._goes_elsewhere(row, job) and time.monotonic() < deadline:
                try:
                    await shake_hands(address(row.node_ip, job.vnc_port), row.password)
                except NoDisplayError as error:
                    last = str(error)
                    await asyncio.sleep(_AFTER_REFUSAL if isinstance(error, PasswordRefusedError) else _ATTEMPT)
                    continue
                await self._change(
                    row, "running", status=Status.RUNNING, vnc_port=job.vnc_port, running_at=now(), message=""
                )
                self._hot.pop(row.id, None)
                return
        if time.monotonic() >= deadline:
            seconds = f"{self._settings.start_seconds:g} s"
            await self._finish(
                row, Status.ERROR, f"job {job.job_id} runs on {job.node}, but no display within {seconds}: {last}"
            )

    def _goes_elsewhere(self, row: SessionRow, job: SlurmJob) -> bool:
        """Whether waiting for the display has become vain: the job ends, or somebody wants something else."""
        if row.id in self._woken:
            return True
        self._expect(row.id, 2 * _LOOK)
        look = self.looks.latest
        seen = look.jobs.get(job.job_id) if look else job
        return seen is None or not seen.alive or bool(seen.problem)

    async def _fulfil(self, row: SessionRow) -> None:
        """End the session's jobs; then forget it, or let it begin anew."""
        await self._end_jobs(row)
        if row.wish == _RESTART:
            await self._change(
                row,
                wish="",
                status=Status.CREATING,
                run=row.run + 1,
                submitted=False,
                job_id=None,
                vnc_port=None,
                node="",
                node_ip="",
                reason="",
                message="",
                password=new_password(),
                running_at=None,
                ended_at=None,
            )
            return

        def forget(session: DatabaseSession) -> None:
            note(session, SERVICE, "deleted", row)
            session.execute(sa.delete(SessionRow).where(SessionRow.id == row.id))

        await self._database.writing(forget)
        self._is_over(row.id)
        self.events.tell({"type": "deleted", "id": row.id}, row.owner)

    async def _end_jobs(self, row: SessionRow) -> None:
        """Cancel all jobs of a session, and wait until nothing of them runs."""
        asked: dict[int, float] = {}
        self._is_over(row.id)
        self._expect(row.id, 2 * _LOOK)
        look = await self.looks.fresh()
        while alive := [job for job in _jobs_of(look, row) if job.alive]:
            self._expect(row.id, 2 * _LOOK)
            for job in alive:
                if time.monotonic() - asked.get(job.job_id, -_AGAIN) < _AGAIN:
                    continue
                try:
                    await self._slurm.cancel(job.job_id, job.user)
                    asked[job.job_id] = time.monotonic()
                except SlurmError as error:
                    log.warning("job %s of session %s cannot be cancelled yet: %s", job.job_id, row.id, error)
            look = await self.looks.next(look)

    async def _finish(self, row: SessionRow, status: Status, message: str) -> None:
        """Note that a session has ended; a job that it should still have is ended by the sweep."""
        await self._change(
            row, status.value, status=status, message=message, reason="", vnc_port=None, password="", ended_at=now()
        )
        self.looks.hurry()

    # --- what may go wrong with a partition -------------------------------------------------------------------

    def _application(self, row: SessionRow) -> Application:
        app = self.applications.get(row.app_id)
        if app is None:
            raise SlurmError(f"there is no application {row.app_id} any more: an administrator has removed it")
        return app

    async def _check_still_possible(self, row: SessionRow) -> None:
        """A wait may be long; one that no waiting ends is told."""
        try:
            await self.manager.check_partition(self._application(row))
        except SlurmAwayError:
            return
        except SlurmError as error:
            await self._finish(row, Status.ERROR, str(error))

    # --- the queue ------------------------------------------------------------------------------------------

    def _expect(self, session_id: str, seconds: float) -> None:
        """Look more often for a while, for something is about to happen."""
        self._hot[session_id] = time.monotonic() + seconds

    def _pace(self) -> float:
        at = time.monotonic()
        self._hot = {session_id: until for session_id, until in self._hot.items() if until > at}
        if self._hot:
            return _SOON
        return _LOOK if self._drivers else _IDLE

    async def _sweep(self, look: Look) -> None:
        """End jobs of ours that no session accounts for. What a look has was in the database before it."""
        prefix = f"{self._installation.name}-"
        alive = [job for job in look.jobs.values() if job.alive and (job.session or ("", 0))[0].startswith(prefix)]
        if not alive:
            return
        ids = {job.session[0] for job in alive if job.session}
        query = sa.select(SessionRow).where(SessionRow.id.in_(ids))
        rows = {row.id: row for row in await self._database.reading(lambda session: session.scalars(query).all())}
        for job in alive:
            assert job.session is not None
            session_id, run = job.session
            row = rows.get(session_id)
            # A name that somebody else gave to a job makes it none of ours.
            if row is not None and row.owner != job.user:
                continue
            # A wish is fulfilled by the session's own task.
            if row is not None and (row.wish or (row.run == run and Status(row.status).live)):
                continue
            await self._end_orphan(job, row)

    async def _end_orphan(self, job: SlurmJob, row: SessionRow | None) -> None:
        if job.job_id not in self._orphans:
            self._orphans.add(job.job_id)
            log.warning("job %s (%s) of %s has no session: ending it", job.job_id, job.name, job.user)
            details = {"job_id": job.job_id, "name": job.name, "user": job.user}
            await self._database.writing(lambda session: note(session, SERVICE, "end-orphan", row, details))
        try:
            await self._slurm.cancel(job.job_id, job.user)
        except SlurmError as error:
            log.warning("job %s cannot be cancelled yet: %s", job.job_id, error)

    # --- the database -----------------------------------------------------------------------------------------

    async def _get(self, session_id: str) -> SessionRow | None:
        return await self._database.reading(lambda session: session.get(SessionRow, session_id))

    async def _change(self, row: SessionRow, action: str = "", /, **values: object) -> SessionRow:
        """Change a session that is still as it was read, and tell it.

        Raises:
            _Overtaken: somebody wants something else of it meanwhile.
        """

        def change(session: DatabaseSession) -> SessionRow:
            current = session.get(SessionRow, row.id)
            if current is None or (current.wish, current.run, current.status) != (row.wish, row.run, row.status):
                raise _Overtaken
            for name, value in values.items():
                setattr(current, name, value)
            if action:
                details = {"message": current.message} if current.message else None
                note(session, SERVICE, action, current, details)
            return current

        changed = await self._database.writing(change)
        self._tell(changed)
        return changed

    def _tell(self, row: SessionRow) -> schema.Session:
        view = self.view(row)
        if view.status != Status.RUNNING or view.ending:
            self._is_over(row.id)
        self.events.tell({"type": "session", "session": view.model_dump(mode="json")}, row.owner)
        return view

    def tell_slurm(self) -> None:
        """Tell everybody whether Slurm answers."""
        self.events.tell(self.slurm_told())

    def slurm_told(self) -> dict[str, object]:
        """Whether Slurm answers, as listeners are told."""
        return {"type": "slurm", "ok": not self.looks.trouble, "message": self.looks.trouble or ""}

    def _is_over(self, session_id: str) -> None:
        if over := self._over.pop(session_id, None):
            over.set()

    def view(self, row: SessionRow) -> schema.Session:
        """A session as the API shows it."""
        app = self.applications.get(row.app_id)
        runs = row.status == Status.RUNNING and row.vnc_port is not None
        return schema.Session(
            id=row.id,
            app_id=row.app_id,
            title=app.title if app else row.app_id,
            owner=row.owner,
            status=Status(row.status),
            message=row.message,
            reason=row.reason,
            ending=bool(row.wish),
            run=row.run,
            job_id=row.job_id,
            node=row.node,
            node_ip=row.node_ip,
            vnc_port=row.vnc_port,
            displayUrl=address(row.node_ip, row.vnc_port) if runs and row.vnc_port else "",
            geometry=row.geometry,
            created_at=row.created_at,
            running_at=row.running_at,
            ended_at=row.ended_at,
        )

    async def _clean(self) -> None:
        """Forget sessions that ended long ago, and logins that have expired."""
        while True:
            try:
                await self._database.writing(self._forget_old)
            except sa.exc.SQLAlchemyError as error:
                log.warning("what is old was not removed: %s", error)
            await asyncio.sleep(_CLEANING_SECONDS)

    def _forget_old(self, session: DatabaseSession) -> None:
        at = now()
        before = at - timedelta(days=self._settings.retention_days)
        old = SessionRow.status.not_in(_LIVE) & (SessionRow.wish == "") & (SessionRow.ended_at < before)
        session.execute(sa.delete(SessionRow).where(old))
        session.execute(sa.delete(Login).where(Login.expires_at < at))


_LIVE = [status.value for status in Status if status.live]


def _unfinished(session: DatabaseSession) -> list[str]:
    query = sa.select(SessionRow.id).where(SessionRow.status.in_(_LIVE) | (SessionRow.wish != ""))
    return list(session.scalars(query))


def _live(session: DatabaseSession, user: str | None = None) -> int:
    query = sa.select(sa.func.count()).select_from(SessionRow).where(SessionRow.status.in_(_LIVE))
    if user is not None:
        query = query.where(SessionRow.owner == user)
    return session.scalar(query) or 0


async def _check_may(app: Application, user: str) -> None:
    """Raises a refusal where the user may not start the application."""
    # In a thread: the groups are asked of the system, which may have to wait for a directory.
    if not await asyncio.to_thread(app.may, user):
        raise Refusal(403, "application_forbidden", f"{user} may not start {app.title}: ask an administrator")


def _found(session: DatabaseSession, session_id: str, user: str, admin: bool = False) -> SessionRow:
    row = session.get(SessionRow, session_id)
    if row is None or (row.owner != user and not admin):
        raise Refusal(404, "session_not_found", f"{user} has no session {session_id}")
    return row


def _check_runs(row: SessionRow) -> None:
    if row.wish:
        raise Refusal(409, "session_not_running", "the session is being ended")
    if row.status != Status.RUNNING:
        why = f": {row.message}" if row.message else ""
        raise Refusal(409, "session_not_running", f"the session is {row.status}, it has no display now{why}")


def _jobs_of(look: Look, row: SessionRow) -> list[SlurmJob]:
    return [job for job in look.jobs.values() if is_of(job, row.id, row.owner)]


def _end_of(row: SessionRow, job: SlurmJob | None) -> tuple[Status, str] | None:
    """What the end of a job makes of its session; None where the job goes on."""
    if job is None or not is_of(job, row.id, row.owner):
        return Status.STOPPED, "Slurm does not know its job any more: it has ended"
    if job.waits and row.status == Status.RUNNING:
        return Status.STOPPED, "Slurm requeued its job, whose display is gone"
    if job.alive:
        return None
    if job.problem:
        return Status.ERROR, job.problem
    if job.state in _ENDS:
        return Status.STOPPED, _ENDS[job.state]
    if job.state == "COMPLETED" and row.status == Status.RUNNING:
        return Status.STOPPED, "the application was closed"
    why = f" ({job.reason})" if job.reason else ""
    place = f" on {row.node or job.node}" if row.node or job.node else ""
    when = "" if row.status == Status.RUNNING else " before its display answered"
    return (
        Status.ERROR,
        f"job {job.job_id} ended as {job.state}{why}{place}{when}; its output is in {output_path(row.id)} there",
    )


def new_password() -> str:
    """A password for a display, as long as VNC authentication reads it."""
    return "".join(secrets.choice(_PASSWORD_CHARACTERS) for _ in range(_PASSWORD_LENGTH))
