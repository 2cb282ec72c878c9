"""A running Slurm cluster, as its users and tests speak to it, whatever carries it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, TypeVar

from slurm_testbed.errors import CommandError, NotStartedError, UsageError, tail
from slurm_testbed.readiness import wait_until
from slurm_testbed.rest import Rest
from slurm_testbed.substrate import Substrate

if TYPE_CHECKING:
    from slurm_testbed.doctor import Diagnosis

T = TypeVar("T")

#: States in which a job is over: squeue(1), JOB STATE CODES.
FINAL_STATES = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
)

#: Between the columns of sacct, for a job may be called anything else.
_DELIMITER = "\x1f"
#: Port of slurmrestd inside its host.
REST_PORT = 6820
#: Seconds in which an ordinary machine's slurmrestd answers.
_REST_SECONDS = 10
#: What the image says of its release.
_RELEASE_ENV = "/usr/share/slurm-testbed/release.env"
#: What may be said of a node that can take a job at once: sinfo(1), NODE STATE CODES.
_IDLE = frozenset({"IDLE", "CLOUD", "DYNAMIC_NORM"})
#: slurmctld holds a job whose Prolog failed, and drains its node, until somebody releases it: slurm.conf(5), Prolog.
_LAUNCH_FAILED = "launch_failed_requeued_held"


@dataclass(frozen=True)
class JobRecord:
    """What slurmctld knows of one job or array task: scontrol(1), show job.

    Attributes:
        id: the job id.
        state: for instance `RUNNING` or `COMPLETED`.
        reason: why it waits or ended, `None` where there is none.
        exit_code: exit status of the script.
        signal: signal that ended it, 0 where none did.
        nodes: host list expression of its nodes.
        fields: every field of `scontrol show job`.
    """

    id: int
    state: str
    reason: str
    exit_code: int
    signal: int
    nodes: str
    fields: Mapping[str, str]

    @classmethod
    def parse_all(cls, text: str) -> list[JobRecord]:
        """Read what `scontrol --oneliner show job` prints.

        Since 26.05 a record holds the command that was called, which may be of several lines.

        Example:
            >>> first, second = JobRecord.parse_all("JobId=7 SubmitLine=a\\nb WorkDir=/\\nJobId=8\\n")
            >>> first.fields["SubmitLine"], second.id
            ('a\\nb', 8)
        """
        return [cls.parse(record) for record in re.split(r"^(?=JobId=)", text, flags=re.MULTILINE) if record.strip()]

    @classmethod
    def parse(cls, line: str) -> JobRecord:
        """Read one record of `scontrol --oneliner show job`.

        Example:
            >>> JobRecord.parse("JobId=7 JobName=a b JobState=FAILED Reason=NonZeroExitCode ExitCode=3:0").exit_code
            3
        """
        fields = parse_fields(line)
        exit_code, _, signal = fields.get("ExitCode", "0:0").partition(":")
        return cls(
            id=int(fields["JobId"]),
            state=fields.get("JobState", ""),
            reason=fields.get("Reason", "None"),
            exit_code=int(exit_code),
            signal=int(signal or 0),
            nodes=fields.get("NodeList", ""),
            fields=fields,
        )


def parse_fields(text: str) -> dict[str, str]:
    """Split `Key=value Key=value`, as scontrol prints it, where values may hold blanks and line ends.

    A value may hold what looks like a field: the first one of a name counts.

    Example:
        >>> parse_fields("JobId=7 JobName=two words TRES=cpu=1,mem=100M SubmitLine=sbatch --wrap=env JobId=8")
        {'JobId': '7', 'JobName': 'two words', 'TRES': 'cpu=1,mem=100M', 'SubmitLine': 'sbatch --wrap=env'}
    """
    fields: dict[str, str] = {}
    for name, value in re.findall(r"(?s)([A-Z][\w:/]*)=(.*?)(?=\s+[A-Z][\w:/]*=|\s*\Z)", text):
        fields.setdefault(name, value)
    return fields


def is_idle(state: str) -> bool:
    """Whether a node in this state, as `scontrol show node` has it, can take a job at once.

    Example:
        >>> is_idle("IDLE+DYNAMIC_NORM"), is_idle("IDLE+DRAIN"), is_idle("IDLE*")
        (True, False, False)
    """
    return "IDLE" in state and set(state.split("+")) <= _IDLE


def require_ability(release_env: str, ability: str, what: str) -> None:
    """Refuse what a release cannot do, in one sentence.

    Args:
        release_env: the text of release.env in the image.
        ability: as in images/releases.yaml.
        what: the ability in words, and since when there is it.

    Raises:
        UsageError: the release has no such ability.

    Example:
        >>> require_ability('SLURM_RELEASE=24.11.5\\nSLURM_ABILITIES="pam dynamic_nodes"', "dynamic_nodes", "slurmd -Z")
    """
    facts = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release_env, re.MULTILINE))
    if ability not in facts["SLURM_ABILITIES"].split():
        raise UsageError(f"Slurm {facts['SLURM_RELEASE']} has no {ability} ({what})")


class Job:
    """A job that was submitted: ask for its state, wait for it, read its output, cancel it."""

    def __init__(self, slurm: Slurm, job_id: int) -> None:
        self._slurm = slurm
        self.id = job_id

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def records(self) -> list[JobRecord]:
        """One record per array task or component, a single one for an ordinary job."""
        answer = self._slurm.run(["scontrol", "--oneliner", "show", "job", str(self.id)])
        return JobRecord.parse_all(answer.stdout)

    def record(self) -> JobRecord:
        """The job's record; of an array the one that scontrol shows first, which need not be the first task's."""
        return self.records()[0]

    @property
    def state(self) -> str:
        """The job's state now."""
        return self.record().state

    def wait(self, deadline: float = 60, *, until: frozenset[str] | set[str] = FINAL_STATES) -> JobRecord:
        """Wait until every task of the job is in one of the states, by default a final one.

        Args:
            deadline: seconds.
            until: states to wait for, e.g. `{"RUNNING"}`; a final state ends the wait as well.

        Returns:
            the job's record; of an array one that is not as was hoped, where there is one: in another state than those
            of `until`, or than COMPLETED.

        Raises:
            NotReadyError: with the job's last state and reason, and the controller's log; at once where slurmctld
                holds the job because a node could not launch it, as after a Prolog that fails.

        Example:
            >>> slurm.sbatch(wrap="exit 3").wait().exit_code  # doctest: +SKIP
            3
        """
        seen: list[JobRecord] = []

        def over() -> JobRecord | None:
            seen[:] = self.records()
            if any(record.state not in FINAL_STATES | until for record in seen):
                return None
            wanted = {"COMPLETED"} if until == FINAL_STATES else until
            return next((record for record in seen if record.state not in wanted), seen[0])

        def held() -> str | None:
            if all(record.reason != _LAUNCH_FAILED for record in seen):
                return None
            return "a node could not launch it, as where the Prolog fails, and it is held until `scontrol release`"

        return self._slurm.wait_until(
            over,
            f"job {self.id} to be {' or '.join(sorted(until)) if until != FINAL_STATES else 'over'}",
            deadline=deadline,
            state=lambda: ", ".join(sorted({f"{r.state} ({r.reason})" for r in seen})),
            give_up=held,
        )

    def output(self) -> str:
        """What the job's script wrote to its output file, read on the job's first node."""
        record = self.record()
        return self._slurm.read(record.fields["StdOut"], host=self._slurm.host_of_node(record.nodes))

    def cancel(self) -> None:
        """Cancel the job: scancel(1)."""
        self._slurm.run(["scancel", str(self.id)])


class Slurm:
    """A running cluster; knows only a substrate.

    Args:
        substrate: what carries the cluster.
        user: who submits where no user is named.
    """

    _substrate: Substrate | None = None

    def __init__(self, substrate: Substrate, *, user: str = "alice") -> None:
        self._substrate = substrate
        self.user = user

    @property
    def substrate(self) -> Substrate:
        """What carries the cluster.

        Raises:
            UsageError: it is not started.
        """
        if self._substrate is None:
            raise NotStartedError(self)
        return self._substrate

    @property
    def controller(self) -> str:
        """The host that runs slurmctld."""
        return self.host_of("slurmctld")

    def host_of(self, daemon: str) -> str:
        """The first host that runs a daemon.

        Args:
            daemon: munged, mariadbd, slurmdbd, slurmctld, slurmd or slurmrestd.

        Raises:
            UsageError: none does.

        Example:
            >>> slurm.substrate.service(slurm.host_of("slurmd"), "slurmd", "kill")  # doctest: +SKIP
        """
        hosts = self.substrate.hosts()
        for host in hosts:
            if daemon in host.daemons:
                return host.name
        known = sorted(set().union(*(host.daemons for host in hosts)))
        raise UsageError(f"no host of this cluster runs {daemon}", hint=f"the daemons are {', '.join(known)}")

    def host_of_node(self, nodes: str) -> str:
        """The host that carries the first node of a host list expression, the controller where none does."""
        names = [host.name for host in self.substrate.hosts()]
        # n[1-2,5] or rack1n[01-20]: the first is n1, and rack1n01.
        first = re.sub(r"\[([^],-]+).*", r"\1", nodes.partition(",")[0])
        return first if first in names else self.controller

    # --- commands ---------------------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        host: str | None = None,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        check: bool = True,
    ) -> CompletedProcess[str]:
        """Run a command on a host of the cluster, by default on the controller's as root.

        Raises:
            CommandError: with the command's own text, when its exit status is not zero and `check` is set.

        Example:
            >>> slurm.run(["sinfo", "--noheader", "--format=%T"]).stdout  # doctest: +SKIP
            'idle\\n'
        """
        done = self.substrate.exec(
            host or self.controller, list(argv), user=user, stdin=stdin, env=env, workdir=workdir
        )
        if check and done.returncode:
            raise CommandError(argv, done.returncode, done.stdout, done.stderr)
        return done

    def read(self, path: str, *, host: str | None = None) -> str:
        """The text of a file on a host."""
        return self.run(["cat", path], host=host).stdout

    def sbatch(
        self,
        *,
        wrap: str | None = None,
        script: str | None = None,
        path: str | Path | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        **options: str | int | bool | None,
    ) -> Job:
        """Submit a batch job: sbatch(1).

        Args:
            wrap: a shell command, or
            script: the text of a batch script, or
            path: a batch script on the caller's machine.
            user: who submits.
            env: variables that the job sees besides its own.
            workdir: folder on the submitting host; the user's home by default.
            options: long options of sbatch: `nodes=2`, `cpus_per_task=4`, `hold=True`.

        Raises:
            CommandError: with sbatch's own text.
            UsageError: there is no job, as with `test_only=True`.

        Example:
            >>> slurm.sbatch(wrap="hostname", nodes=2, user="alice")  # doctest: +SKIP
            <Job ...>
        """
        if sum(source is not None for source in (wrap, script, path)) != 1:
            raise UsageError("sbatch takes exactly one of wrap, script and path")
        text = Path(path).read_bytes() if path is not None else script  # sbatch refuses DOS line ends, too
        argv = ["sbatch", "--parsable", *_long_options(options)]
        if wrap is not None:
            argv.append(f"--wrap={wrap}")
        user = user or self.user
        done = self.run(argv, user=user, stdin=text, env=env, workdir=workdir or self.home(user))
        job_id = done.stdout.strip().partition(";")[0]
        if not job_id:
            raise UsageError(f"sbatch submitted nothing: {tail(done.stderr, 2)}", hint="`run` takes any command line")
        return Job(self, int(job_id))

    def srun(self, *argv: str, user: str | None = None, **options: str | int | bool | None) -> str:
        """Run a command as a job and return what it printed: srun(1).

        Example:
            >>> slurm.srun("printenv", "SLURM_NTASKS", ntasks=1)  # doctest: +SKIP
            '1\\n'
        """
        user = user or self.user
        return self.run(["srun", *_long_options(options), *argv], user=user, workdir=self.home(user)).stdout

    def home(self, user: str) -> str:
        """A user's home folder inside the cluster."""
        return "/root" if user == "root" else f"/home/{user}"

    def job(self, job_id: int) -> Job:
        """A job by its id."""
        return Job(self, job_id)

    def nodes(self) -> dict[str, dict[str, str]]:
        """Every node with the fields of `scontrol show node`."""
        text = self.run(["scontrol", "--oneliner", "show", "node"]).stdout
        # A comment may be of several lines.
        records = [parse_fields(record) for record in re.split(r"^(?=NodeName=)", text, flags=re.MULTILINE)]
        return {record["NodeName"]: record for record in records if record}

    def sacct(self, *arguments: str, user: str = "root") -> list[dict[str, str]]:
        """Accounting records as dictionaries by column: sacct(1).

        slurmctld tells slurmdbd of a job a moment after it began, and of its end: wait for what is to be there. A short
        job may have its final State before its ExitCode; both are true once its End is no longer `Unknown`.

        Example:
            >>> job = slurm.sbatch(wrap="true")  # doctest: +SKIP
            >>> asked = ["--allocations", f"--jobs={job.id}", "--format=State,ExitCode,End"]  # doctest: +SKIP
            >>> ended = lambda: [row for row in slurm.sacct(*asked) if row["End"] != "Unknown"]  # doctest: +SKIP
            >>> slurm.wait_until(ended, "the job's end in the accounting")  # doctest: +SKIP
            [{'State': 'COMPLETED', 'ExitCode': '0:0', 'End': '...'}]
        """
        # A job's name and what it was submitted with may have any bar and any new line.
        text = self.run(["sacct", "--parsable", f"--delimiter={_DELIMITER}", *arguments], user=user).stdout
        columns = text.partition("\n")[0].split(_DELIMITER)[:-1]
        cells = text.split(_DELIMITER)[len(columns) : -1]
        rows = [cells[at : at + len(columns)] for at in range(0, len(cells), len(columns))]
        return [dict(zip(columns, (first.removeprefix("\n"), *more), strict=True)) for first, *more in rows]

    def queue(self) -> list[int]:
        """Ids of all jobs that are not over."""
        text = self.run(["squeue", "--noheader", "--all", "--format=%A"]).stdout
        return sorted({int(word) for word in text.split()})

    # --- dynamic nodes ----------------------------------------------------------------------------------

    def add_node(self, name: str, *, conf: str = "", deadline: float = 30) -> None:
        """Let a dynamic node join, and wait until it is idle: slurmd(8), `-Z`.

        It is in every partition with `Nodes=ALL`, as `debug` is. In one container it is one more slurmd; in a
        cluster of several hosts it is one more host.

        Args:
            name: the node's name.
            conf: its configuration as in slurm.conf(5), `CPUs=4 Feature=x`; by default what slurmd finds.
            deadline: seconds.

        Raises:
            UsageError: the release has no dynamic nodes, or the name is taken.
            NotReadyError: it did not join; nothing of it is left.

        Example:
            >>> slurm.add_node("burst1", conf="CPUs=4 RealMemory=1000 Feature=burst")  # doctest: +SKIP
            >>> slurm.srun("printenv", "SLURMD_NODENAME", constraint="burst")  # doctest: +SKIP
            'burst1\\n'
        """
        self.require_dynamic_nodes()
        if name in self.nodes():
            raise UsageError(f"there is a node {name} already", hint="choose another name")
        self.substrate.add_node(name, conf)

        def state() -> str:
            return self.nodes().get(name, {}).get("State", "unknown")

        try:
            self.wait_until(
                lambda: is_idle(state()),
                f"the dynamic node {name} to join",
                deadline=deadline,
                state=lambda: f"{state()}; its host says: {tail(self.substrate.logs(self.host_of_node(name)), 6)}",
            )
        except BaseException:
            self.substrate.remove_node(name)
            if name in self.nodes():  # registered, but not idle
                self.run(["scontrol", "delete", f"NodeName={name}"])
            raise

    def require_dynamic_nodes(self) -> None:
        """Refuse a release without dynamic nodes.

        Raises:
            UsageError: this is one.
        """
        require_ability(self.read(_RELEASE_ENV), "dynamic_nodes", "slurmd -Z, 22.05 and later")

    def remove_node(self, name: str, *, deadline: float = 60) -> None:
        """Let a dynamic node leave: it gets no more jobs, and goes when those that it has are over.

        Args:
            name: the node's name.
            deadline: seconds; a job that takes longer keeps the node, drained.

        Raises:
            UsageError: it is no dynamic node.
            NotReadyError: jobs still run on it.

        Example:
            >>> slurm.remove_node("burst1")  # doctest: +SKIP
        """
        if "DYNAMIC_NORM" not in self.nodes().get(name, {}).get("State", ""):
            raise UsageError(f"there is no dynamic node {name}", hint="those of slurm.conf stay: drain them")
        self.run(["scontrol", "update", f"NodeName={name}", "State=DRAIN", "Reason=leaves"])
        refusals: list[str] = []

        def deleted() -> bool:
            done = self.run(["scontrol", "delete", f"NodeName={name}"], check=False)
            refusals[:] = [tail(done.stderr, 1)]
            return done.returncode == 0

        self.wait_until(
            deleted, f"the node {name} to be left by its jobs", deadline=deadline, state=lambda: refusals[0]
        )
        self.substrate.remove_node(name)

    # --- slurmrestd -------------------------------------------------------------------------------------

    def token(self, user: str | None = None, *, lifespan: int = 3600) -> str:
        """A JWT of a user, made by `scontrol token`.

        Args:
            user: whose token.
            lifespan: seconds.
        """
        answer = self.run(["scontrol", "token", f"username={user or self.user}", f"lifespan={lifespan}"])
        return answer.stdout.strip().removeprefix("SLURM_JWT=")

    def rest_url(self) -> str:
        """Where the caller reaches slurmrestd."""
        host, port = self.substrate.endpoint("slurmrestd", REST_PORT)
        return f"http://{host}:{port}"

    def rest(self, user: str | None = None, *, version: str | None = None) -> Rest:
        """A client of slurmrestd with a fresh token of the user.

        Example:
            >>> slurm.rest(user="alice").get("ping")["pings"]  # doctest: +SKIP
            [{'hostname': 'slurm...', ...}]
        """
        user = user or self.user
        timeout = _REST_SECONDS * self.substrate.facts().speed
        return Rest(self.rest_url(), user, self.token(user), version=version, timeout=timeout)

    # --- state ------------------------------------------------------------------------------------------

    def wait_until(
        self,
        condition: Callable[[], T | None],
        awaited: str,
        *,
        deadline: float = 30,
        state: Callable[[], str] | None = None,
        give_up: Callable[[], str | None] | None = None,
    ) -> T:
        """Wait for a condition; the deadline grows with the substrate's slowness.

        Raises:
            NotReadyError: the deadline passed, or `give_up` had a reason; with the tail of slurmctld's log.
        """
        return wait_until(
            condition,
            awaited,
            deadline=deadline,
            speed=self.substrate.facts().speed,
            state=state,
            log=lambda: self.substrate.logs(self.controller, "slurmctld"),
            hint="squeue and sinfo --list-reasons on the controller say more",
            give_up=give_up,
        )

    def wait_idle(self, deadline: float = 30) -> None:
        """Wait until no job is left and every node is idle."""

        def idle() -> bool:
            return not self.queue() and all(is_idle(node["State"]) for node in self.nodes().values())

        self.wait_until(
            idle,
            "an empty queue and idle nodes",
            deadline=deadline,
            state=lambda: f"jobs {self.queue()}, nodes { ({n: f['State'] for n, f in self.nodes().items()}) }",
        )

    def reset(self) -> None:
        """Cancel every job, drop reservations, resume nodes and let dynamic ones leave: the next test finds it idle."""
        script = """
            squeue --noheader --all --format=%A | sort -u | xargs --no-run-if-empty scancel --quiet
            scontrol --oneliner show reservation | sed --quiet 's/^ReservationName=\\([^ ]*\\).*/\\1/p' |
              while read -r name; do scontrol delete "ReservationName=$name"; done
            sinfo --noheader --Node --states=drain,down,fail --format=%N | sort -u |
              while read -r node; do scontrol update "NodeName=$node" State=RESUME; done
            scontrol --oneliner show node | sed --quiet 's/^NodeName=\\([^ ]*\\) .*DYNAMIC_NORM.*/\\1/p'
        """
        for node in self.run(["bash", "-c", script]).stdout.split():
            self.remove_node(node)
        self.wait_idle()

    def on_path(self, workdir: str | Path) -> AbstractContextManager[Path]:
        """Put sbatch, squeue, sinfo and the others on this process's PATH, as the caller, in the caller's folder.

        Args:
            workdir: a folder; commands run in it or below see it inside the cluster under the same path.

        Example:
            >>> with slurm.on_path(workdir):  # doctest: +SKIP
            ...     subprocess.run(["sbatch", "--wait", "job.sh"], cwd=workdir, check=True)
            CompletedProcess(...)
        """
        from slurm_testbed.on_path import commands_on_path

        return commands_on_path(self, Path(workdir))

    def diagnose(self) -> Diagnosis:
        """Look at daemons, keys and logs, and name what is wrong: see slurm_testbed.doctor."""
        from slurm_testbed.doctor import diagnose

        return diagnose(self)


def _long_options(options: Mapping[str, str | int | bool | None]) -> Iterator[str]:
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            yield option
        elif value is not None and value is not False:
            yield f"{option}={value}"
