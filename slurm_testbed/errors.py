"""What can go wrong, as a small tree of exceptions that all say cause and fix."""

from __future__ import annotations

from collections.abc import Sequence


def tail(text: str, lines: int) -> str:
    """The last lines of a text, which in a log say most about a failure.

    Args:
        text: the text.
        lines: how many of its lines, at most.

    Example:
        >>> tail("one\\ntwo\\nthree\\n", 2)
        'two\\nthree'
    """
    return "\n".join(text.rstrip().splitlines()[-lines:])


class SlurmTestbedError(Exception):
    """Any failure that Slurm Testbed explains itself.

    Args:
        message: what happened, in one sentence.
        hint: what the reader can do about it.

    Example:
        >>> print(SlurmTestbedError("no image slurm-client", hint="run: invoke build"))
        no image slurm-client
        Hint: run: invoke build
    """

    #: Exit status with which a task ends that fails with this error.
    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


class UsageError(SlurmTestbedError):
    """An argument that cannot be right, whatever the state of the machine."""

    exit_status = 2


class NotStartedError(UsageError):
    """A cluster or a container is used before its start.

    Args:
        what: the cluster or container.
    """

    def __init__(self, what: object) -> None:
        super().__init__(f"this {type(what).__name__} is not started: use it in a with statement, or call start()")


class EngineError(SlurmTestbedError):
    """The container engine answered, but not as needed."""


class EngineNotFoundError(EngineError):
    """No container engine can be used or started here."""

    exit_status = 3


class PackagesError(SlurmTestbedError):
    """The distribution's packages could not be installed on this machine."""


class BuildError(SlurmTestbedError):
    """An image could not be built."""


class NoSourceError(BuildError):
    """No source of a Slurm release can be had; the message names what was tried."""


class UnknownReleaseError(UsageError):
    """A Slurm release that releases.yaml does not describe."""


class KeyFileError(SlurmTestbedError):
    """A munge or JWT key that a daemon would refuse."""


class ApiError(SlurmTestbedError):
    """A service beside Slurm refused a request, in its own words.

    Args:
        status: the HTTP status; 0 where nothing answered.
        message: what it says.
    """

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        self.status = status
        super().__init__(message, hint=hint)


class HubError(ApiError):
    """JupyterHub refused a request."""


class ObservabilityError(ApiError):
    """The service of job observability refused a request."""


class AppSessionsError(ApiError):
    """The service of application sessions refused a request."""


class DeployError(SlurmTestbedError):
    """An application's image did not come to all nodes."""


class PublishError(SlurmTestbedError):
    """An image was not published, verified, saved or loaded."""


class NotReadyError(SlurmTestbedError):
    """A condition did not come true before its deadline.

    Args:
        awaited: the condition, as a noun phrase ("every node idle").
        deadline: seconds that were allowed.
        last_state: what was seen last.
        log: the tail of the log that explains most.
        hint: what the reader can do about it.
    """

    def __init__(self, awaited: str, *, deadline: float, last_state: str = "", log: str = "", hint: str = "") -> None:
        self.awaited, self.deadline, self.last_state, self.log = awaited, deadline, last_state, log
        parts = [f"waited {deadline:g} s for {awaited}; last seen: {last_state or 'nothing'}"]
        if log:
            parts.append("Log (its tail):\n" + log.rstrip())
        super().__init__("\n".join(parts), hint=hint)


class CommandError(SlurmTestbedError):
    """A command ended with a non-zero exit status; the text is the command's own.

    Args:
        argv: the command as it was run.
        returncode: its exit status.
        stdout: what it wrote to standard output.
        stderr: what it wrote to standard error.
    """

    def __init__(self, argv: Sequence[str], returncode: int, stdout: str, stderr: str) -> None:
        self.argv, self.returncode, self.stdout, self.stderr = tuple(argv), returncode, stdout, stderr
        said = (stderr.strip() or stdout.strip()) or "it printed nothing"
        super().__init__(f"{argv[0]} exited with {returncode}: {said}")


class RestUnreachableError(SlurmTestbedError):
    """slurmrestd could not be reached, or did not answer in time."""


class SlurmRestError(SlurmTestbedError):
    """slurmrestd answered a request with an error.

    Args:
        status: the HTTP status.
        errors: Slurm's own error objects, as they stand in the answer.
        url: what was asked.
    """

    def __init__(self, status: int, errors: Sequence[object], url: str) -> None:
        self.status, self.errors, self.url = status, list(errors), url
        texts = [
            f"{e.get('error') or ''} {e.get('description') or ''}".strip() if isinstance(e, dict) else str(e)
            for e in errors
        ]
        super().__init__(f"slurmrestd answered {status} to {url}: {'; '.join(filter(None, texts)) or 'no text'}")
