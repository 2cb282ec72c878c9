"""A SlurmSpawner that loses no job, and says why a server does not start."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import batchspawner
from batchspawner import JobStatus, format_template
from sqlalchemy.orm import object_session
from traitlets import Unicode, observe

from jupyterhub_slurmspawner.queue import is_gone, job_status, reason_of, run_of, state_of
from jupyterhub_slurmspawner.refusals import Ended, NotStarted, Unavailable, refusal

# Seconds: between two looks whether a server listens, the longest between two questions to a Slurm that does not answer
# or where the job waits, and how long a cancelled job may take to end.
_LOOK, _SLOWEST, _END = 0.05, 10.0, 10.0


class SlurmSpawner(batchspawner.SlurmSpawner):  # type: ignore[misc] # batchspawner has no types
    """batchspawner's SlurmSpawner; `c.SlurmSpawner` configures it as before. README.md has what differs.

    Each job carries a mark of its own as its comment, which the hub's database has before sbatch runs: a job whose id
    the hub never learned is found by it.
    """

    batch_query_cmd = Unicode(
        "squeue -h -j {job_id} --states=all -o '%T %S %r %B'",
        help="Asks for a job: its state in the long form at the start of the answer, its node at the end.",
    ).tag(config=True)

    batch_find_cmd = Unicode(
        "squeue -h --user={username} --states=all -o '{moment} %i %T %k'",
        help="Lists the user's jobs, a line each: {moment}, which the spawner gives, then id, state, comment.",
    ).tag(config=True)

    req_srun = Unicode(
        # The script's own --export, by names, would be srun's too, and leave out what the script sets: PATH, for one.
        "srun --export=ALL",
        help="What runs the server as a step of its job; empty to run it without a step.",
    ).tag(config=True)

    #: The comment of the job; empty once it is certain that there is no job.
    job_mark = Unicode()
    #: The run of the job that the server is part of; empty until it has started.
    job_run = Unicode()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._told = asyncio.Event()
        self._submission: asyncio.Task[str] | None = None
        self._interrupted = False
        super().__init__(*args, **kwargs)

    # --- what the hub keeps ------------------------------------------------------------------------------

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what a hub kept; with a mark and no run, that hub ended while the server started."""
        super().load_state(state)
        self.job_mark = state.get("job_mark", "")
        self.job_run = state.get("job_run", "")
        self._interrupted = bool(self.job_mark and not self.job_run)

    def get_state(self) -> dict[str, Any]:
        """What the hub keeps."""
        kept = {"job_mark": self.job_mark, "job_run": self.job_run}
        return {**super().get_state(), **{name: value for name, value in kept.items() if value}}

    def clear_state(self) -> None:
        """Forget the job."""
        super().clear_state()
        self.job_mark = self.job_run = ""
        self._interrupted = False

    def _record(self) -> None:
        """Keep the state at once: the hub itself does so only after the start."""
        self.orm_spawner.state = self.get_state()
        if session := object_session(self.orm_spawner):
            session.commit()

    # --- commands ----------------------------------------------------------------------------------------

    async def run_command(self, cmd: str, input: str | None = None, env: dict[str, str] | None = None) -> str:  # noqa: A002
        """Run a command, and return what it printed.

        Raises:
            RuntimeError: it failed; with its standard error.
            CancelledError: as it comes; batchspawner makes an error of it that reads as "the job is gone".
        """
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_shell(cmd, env=env, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            out, err = await process.communicate(input.encode() if input else None)
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        if process.returncode:
            raise RuntimeError(err.decode(errors="replace").strip())
        # A job's comment is whatever bytes its user likes.
        return out.decode(errors="replace").strip()

    async def _ask(self, template: str, **values: str) -> str:
        values = {**self.get_req_subvars(), **values}
        return await self.run_command(
            f"{format_template(self.exec_prefix, **values)} {format_template(template, **values)}"
        )

    async def query_job_status(self) -> JobStatus:
        """The status of the job: NOTFOUND only where Slurm says so; any other error leaves it UNKNOWN."""
        if not self.job_id:
            self.job_status = ""
            return JobStatus.NOTFOUND
        try:
            self.job_status = await self._ask(self.batch_query_cmd, job_id=self.job_id)
        except (RuntimeError, OSError) as error:
            if not is_gone(str(error)):
                self.log.warning("Slurm does not say how job %s is: %s", self.job_id, error)
                return JobStatus.UNKNOWN
            self.job_status = ""
        return job_status(self.job_status)

    async def _find_job(self) -> str:
        """The id of the job that carries the mark, or nothing if Slurm has none."""
        # Lines of a comment, which may look like a job's, do not begin with what nobody could know who wrote them.
        moment = uuid.uuid4().hex
        for line in (await self._ask(self.batch_find_cmd, moment=moment)).splitlines():
            match line.split(maxsplit=3):
                case [begin, job_id, state, comment] if (begin, comment) == (moment, self.job_mark):
                    if job_status(state) is not JobStatus.NOTFOUND:
                        return job_id
        return ""

    # --- start -------------------------------------------------------------------------------------------

    async def submit_batch_script(self) -> str:
        """Submit the job, and keep its id; sbatch goes on to its end even where the start is cancelled.

        Raises:
            NotStarted: Slurm refused it, or does not answer.
            RuntimeError: sbatch did not run.
        """
        self.job_mark = f"jupyterhub-{uuid.uuid4().hex}"
        self._record()
        self._submission = asyncio.ensure_future(self._submit())
        self.job_id = await asyncio.shield(self._submission)
        self._record()
        self.log.info("Server %s is job %s", self._log_name, self.job_id)
        return self.job_id

    async def _submit(self) -> str:
        command = self._submit_command()
        values = {**self.get_req_subvars(), **(self.user_options or {}), "cmd": self.cmd_formatted_for_batch()}
        script = await self._get_batch_script(**values)
        self.log.info("Submitting with %s", command)
        self.log.debug("Submitting the script:\n%s", script)
        try:
            output = await self.run_command(f"{command} --comment={self.job_mark}", input=script, env=self.get_env())
        except RuntimeError as error:
            known = refusal(str(error))
            # sbatch may give up on an answer that was on its way; any other error means that there is no job.
            if not (isinstance(known, Unavailable) and known.perhaps):
                self.job_mark = ""
            raise known or error from None
        return str(self.parse_job_id(output))

    def _submit_command(self) -> str:
        values = self.get_req_subvars()
        return " ".join(format_template(part, **values) for part in (self.exec_prefix, self.batch_submit_cmd))

    async def start(self) -> tuple[str, int]:
        """Submit the job, and wait until its server listens.

        Raises:
            NotStarted: Slurm refused the job, the job ended, or start_timeout is over.
        """
        self.ip = self.traits()["ip"].default_value
        self.port = self.traits()["port"].default_value
        if self.server:
            self.server.port = self.port
        self._told.clear()
        # The hub's own end of patience has no words, so ours comes before it.
        deadline = asyncio.get_running_loop().time() + self.start_timeout - min(1.0, self.start_timeout / 10)
        await self.submit_batch_script()
        await self._await_port(deadline)
        self.ip = self.state_gethost()
        await self._await_listening()
        self.job_run = run_of(self.job_status)
        self._record()
        self.log.info("Server %s, job %s, is at %s:%s", self._log_name, self.job_id, self.ip, self.port)
        return self.ip, self.port

    async def _await_port(self, deadline: float) -> None:
        step = self.startup_poll_interval
        while True:
            status = await self._status_or_ended()
            if status is JobStatus.RUNNING and self.port:
                return
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise self._too_late(status)
            # The port ends the wait at once, so a job that waits long is seldom asked for.
            step = min(step * 1.2, _SLOWEST) if status is JobStatus.PENDING else self.startup_poll_interval
            # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that comes as what it waits for is done.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(step, left)):
                    await self._told.wait()
            self._told.clear()

    @observe("port")
    def _port_was_told(self, _: object) -> None:
        self._told.set()

    async def _await_listening(self) -> None:
        """Wait until the port is open, as long as the hub would: it asks in steps that grow."""
        clock = asyncio.get_running_loop().time
        asked = clock()
        deadline = asked + self.http_timeout
        while clock() < deadline and not await _listens(self.ip, self.port):
            if clock() - asked > self.startup_poll_interval:
                await self._status_or_ended()
                asked = clock()
            await asyncio.sleep(_LOOK)

    async def _status_or_ended(self) -> JobStatus:
        known = self.job_status
        status = await self.query_job_status()
        if status is JobStatus.NOTFOUND:
            state = state_of(self.job_status) or f"no more in the queue, last {state_of(known) or 'not seen'}"
            raise Ended(f"Job {self.job_id} ended before its server answered: {state}. The job's log says why.")
        return status

    def _too_late(self, status: JobStatus) -> NotStarted:
        if status is JobStatus.PENDING:
            why = f"still waits in the queue ({reason_of(self.job_status) or 'no reason given'})"
        elif status is JobStatus.UNKNOWN:
            why = "is unknown: Slurm does not answer"
        else:
            why = "runs, but its server did not tell its port: the job's log says why"
        return Unavailable(f"After {self.start_timeout} s job {self.job_id} {why}. It was cancelled.")

    async def progress(self) -> AsyncIterator[dict[str, str]]:
        """What happens, once each: https://jupyterhub.readthedocs.io/en/stable/reference/spawners.html"""
        said = ""
        while True:
            message = self._progress()
            if message != said:
                yield {"message": message}
                said = message
            await asyncio.sleep(0.5)

    def _progress(self) -> str:
        if not self.job_id:
            return "Submitting the job"
        if job_status(self.job_status) is JobStatus.PENDING:
            reason = reason_of(self.job_status)
            return f"Job {self.job_id} waits in the queue{f': {reason}' if reason else ''}"
        if self.port:
            return f"Job {self.job_id} runs on {self.state_gethost()}, its server starts"
        return f"Job {self.job_id} is submitted" if not self.job_status else f"Job {self.job_id} runs"

    # --- poll and stop -----------------------------------------------------------------------------------

    async def poll(self) -> int | None:
        """None while the server may live; a number once it is certain that its job does not.

        A hub that ended while the server started left a job that nobody can use, and so does Slurm where it requeues a
        job: its server comes back elsewhere. Such a job is ended here.
        """
        if self._interrupted:
            self.log.warning("The hub ended while %s started: ending its job", self._log_name)
            await self._end_job()
        elif self.job_mark and not self.job_id:
            return None  # sbatch has not answered
        else:
            status = await self.query_job_status()
            if status is JobStatus.UNKNOWN or (status is not JobStatus.NOTFOUND and not self._was_requeued(status)):
                return None
            if status is not JobStatus.NOTFOUND:
                self.log.warning("Slurm requeued job %s of %s: ending it", self.job_id, self._log_name)
                await self._end_job()
        self.clear_state()
        return 1

    def _was_requeued(self, status: JobStatus) -> bool:
        return bool(self.job_run) and (status is JobStatus.PENDING or run_of(self.job_status) != self.job_run)

    async def stop(self, now: bool = False) -> None:
        """Cancel the job: asked again until Slurm has taken it, for the hub forgets the server afterwards.

        Args:
            now: do not wait for the job's end.
        """
        if self._submission and not self.job_id:
            await asyncio.wait([self._submission])
            if not self._submission.cancelled() and not self._submission.exception():
                self.job_id = self._submission.result()
        await self._end_job(now=now)

    async def _end_job(self, *, now: bool = False) -> None:
        step = 0.2
        while True:
            try:
                if not self.job_id and self.job_mark:
                    self.job_id = await self._find_job()
                if not self.job_id:
                    return
                await self.cancel_batch_job()
                break
            except (RuntimeError, OSError) as error:
                if is_gone(str(error)):
                    break
                self.log.warning("The job of %s cannot be cancelled yet: %s", self._log_name, error)
            await asyncio.sleep(step)
            step = min(step * 2, _SLOWEST)
        deadline = asyncio.get_running_loop().time() + (0 if now else _END)
        while asyncio.get_running_loop().time() < deadline and await self.query_job_status() is not JobStatus.NOTFOUND:
            await asyncio.sleep(0.2)


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout=2)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
