"""Slurm by its commands, each run as the user whose job it is about."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence

from app_sessions.errors import SlurmAwayError, SlurmError
from app_sessions.slurm.jobs import Partition, SlurmJob, Submission

_SECONDS = 60
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Of a job: id, state, node, user, reason, name, comment; the last two may be anything.
_FIELDS = ("%A", "%T", "%B", "%u", "%r", "%j", "%k")
_NOTHING = {"", "n/a", "N/A", "None", "(null)", "None assigned"}
_SAID = re.compile(r"^\w+: (?:error: |fatal: )?(.+)$", re.MULTILINE)
# Errors of the way to slurmctld, before the request was sent, and after:
# https://github.com/SchedMD/slurm/blob/master/src/common/slurm_errno.c
_NOT_SENT = re.compile(
    r"\(connect failure\)|Protocol authentication error|Munge encode failed|Invalid authentication credential"
    r"|Connection refused|standby mode|Unable to establish configuration source",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Zero Bytes were transmitted|Unexpected message received"
    r"|Connection (?:reset|timed out)|Communication connection failure|Header lengths are longer",
    re.IGNORECASE,
)
_GONE = re.compile(r"Invalid job id specified|already completing or completed|Job has already finished", re.IGNORECASE)


class Commands:
    """Slurm by sbatch, squeue, scancel, sinfo and scontrol.

    Whoever is not root can start jobs of its own alone.

    Example:
        >>> import asyncio
        >>> asyncio.run(Commands().jobs())  # doctest: +SKIP
        []
    """

    async def submit(self, job: Submission) -> int:
        """Submit a job as its user; what it is told goes by the environment, never by an argument."""
        home = _user(job.user).pw_dir
        printed = await self._run(
            [
                "sbatch",
                "--parsable",
                f"--job-name={job.name}",
                f"--partition={job.partition}",
                f"--nodes={job.nodes}",
                "--ntasks=1",
                f"--cpus-per-task={job.cpus_per_task}",
                f"--mem={job.memory_mib}M",
                f"--time={job.minutes}",
                "--no-requeue",
                "--export=ALL",
                f"--chdir={home}",
                f"--output={job.output}",
                str(job.script),
            ],
            user=job.user,
            environment=job.environment,
        )
        try:
            return int(printed.split(";")[0])
        except ValueError:
            raise SlurmError(f"sbatch answered no job id, but {printed[:200]!r}") from None

    async def cancel(self, job_id: int, user: str) -> None:
        """Cancel a job as its user."""
        try:
            await self._run(["scancel", str(job_id)], user=user)
        except SlurmError as error:
            if not _GONE.search(str(error)):
                raise

    async def jobs(self) -> list[SlurmJob]:
        """All jobs, by squeue."""
        mark = secrets.token_hex(16)
        # By the environment: an argument would be seen by all, who could put it into a comment.
        environment = {"SQUEUE_FORMAT": f"{mark}." + f"{mark},".join(_FIELDS)}
        return read_jobs(
            await self._run(["squeue", "--noheader", "--all", "--states=all"], environment=environment), mark
        )

    async def partition(self, name: str) -> Partition | None:
        """A partition, by sinfo."""
        printed = await self._run(["sinfo", "--noheader", f"--partition={name}", "--format=%a|%T|%D"])
        return read_partition(name, printed)

    async def node_address(self, node: str) -> str:
        """A node's NodeAddr, by scontrol."""
        printed = await self._run(["scontrol", "--oneliner", "show", "node", node])
        match = re.search(r"(?:^| )NodeAddr=(\S+)", printed)
        if match is None:
            raise SlurmError(f"scontrol tells no address of the node {node}")
        return match[1]

    async def _run(
        self, argv: Sequence[str], *, user: str | None = None, environment: Mapping[str, str] | None = None
    ) -> str:
        own = {name: value for name, value in os.environ.items() if name.startswith(("SLURM_CONF", "TZ", "LANG"))}
        env = {"PATH": _PATH, **own}
        # Without a user it is a question, asked as whoever we are.
        identity: dict[str, object] = {}
        if user is not None:
            known = _user(user)
            env |= {"HOME": known.pw_dir, "USER": user, "LOGNAME": user, "SHELL": known.pw_shell}
            identity = _identity(known)
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env={**env, **(environment or {})},
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                **identity,  # type: ignore[arg-type]
            )
        except FileNotFoundError:
            raise SlurmError(f"there is no command {argv[0]} here: install Slurm's client") from None
        except OSError as error:  # no process, no memory, no file descriptor is to be had just now
            raise SlurmAwayError(f"{argv[0]} cannot be started now: {error.strerror}", perhaps=False) from None
        try:
            async with asyncio.timeout(_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            raise SlurmAwayError(f"{argv[0]} did not end within {_SECONDS} s", perhaps=True) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        said = err.decode(errors="replace")
        if process.returncode:
            raise failure(argv[0], process.returncode, said)
        return out.decode(errors="replace").strip()


def failure(command: str, status: int, stderr: str) -> SlurmError:
    """What a command's error is to people.

    Example:
        >>> failure("sbatch", 1, "sbatch: error: Batch job submission failed: Invalid qos specification")
        SlurmError('Slurm refused: Batch job submission failed: Invalid qos specification')
    """
    words = "; ".join(dict.fromkeys(_SAID.findall(stderr))) or f"{command} ended with {status}: {stderr.strip()[-500:]}"
    if _NOT_SENT.search(words) or _NO_ANSWER.search(words):
        return SlurmAwayError(f"Slurm does not answer: {words}", perhaps=not _NOT_SENT.search(words))
    return SlurmError(f"Slurm refused: {words}")


def read_jobs(printed: str, mark: str) -> list[SlurmJob]:
    """The jobs that squeue printed.

    Args:
        printed: `MARK.` begins a job, `MARK,` a further field of it.
        mark: what nobody could know who wrote a job's name or comment.

    Example:
        >>> read_jobs("xy.7xy,RUNNINGxy,viz1xy,alicexy,Nonexy,app_session_1a2b-3c.1xy,vnc_port=6080", "xy")[0].vnc_port
        6080
    """
    found = []
    for record in printed.split(f"{mark}.")[1:]:
        job_id, state, node, user, reason, name, comment = record.removesuffix("\n").split(f"{mark},")
        node, reason, comment = ("" if text in _NOTHING else text for text in (node, reason, comment))
        found.append(SlurmJob(int(job_id), name, user, state, node, reason, comment))
    return found


def read_partition(name: str, printed: str) -> Partition | None:
    """The partition that sinfo printed: a line for each state of its nodes."""
    lines = [line.split("|") for line in printed.splitlines() if line.count("|") == 2]
    if not lines:
        return None
    nodes: Counter[str] = Counter()
    for _, state, count in lines:
        if int(count):
            nodes[state] += int(count)
    return Partition(name, lines[0][0] == "up", nodes)


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise SlurmError(f"there is no user {name} on this host any more") from None


def _identity(known: pwd.struct_passwd) -> dict[str, object]:
    """How a process becomes that of a user."""
    if os.geteuid() == known.pw_uid:
        return {}
    if os.geteuid():
        raise SlurmError(f"only root can submit as {known.pw_name}: run the service as root, or use slurmrestd")
    return {
        "user": known.pw_uid,
        "group": known.pw_gid,
        "extra_groups": os.getgrouplist(known.pw_name, known.pw_gid),
        "umask": 0o022,
    }
