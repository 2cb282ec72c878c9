"""Submit jobs to Slurm from a notebook: submit_slurm_job, check_job_status, get_job_output.

Example:
    >>> from slurm_examples import check_job_status, get_job_output, submit_slurm_job
    >>> job_id = submit_slurm_job("#!/bin/bash\\necho Hello from SLURM!", "hello")  # doctest: +SKIP
    >>> check_job_status(job_id)  # doctest: +SKIP
    'COMPLETED'
    >>> get_job_output(job_id)  # doctest: +SKIP
    'Hello from SLURM!\\n'

As a program, `python3 slurm_examples.py`, it does just that.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

#: States in which a job will not change any more: squeue(1), JOB STATE CODES.
FINAL = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
)


class SlurmError(Exception):
    """Slurm refused; the message is its own."""


def _slurm(*argv: str, text: str | None = None) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SlurmError(f"{argv[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def _fields(job_id: int) -> dict[str, str]:
    """What slurmctld knows of a job, which is for some minutes after its end."""
    shown = _slurm("scontrol", "--oneliner", "show", "job", str(job_id))
    return dict(re.findall(r"(\w+)=(\S*)", shown))


def submit_slurm_job(script_content: str, job_name: str = "jupyter_job") -> int:
    """Submit a batch script.

    Args:
        script_content: the script; it begins with `#!`.
        job_name: the job's name.

    Returns:
        The job's id.

    Raises:
        SlurmError: sbatch refused it, with its reason.
    """
    # The first line of a notebook's text block is often empty.
    answer = _slurm("sbatch", "--parsable", f"--job-name={job_name}", text=script_content.lstrip())
    return int(answer.split(";")[0])


def check_job_status(job_id: int) -> str:
    """The state of a job in Slurm's words, as PENDING, RUNNING or COMPLETED.

    Args:
        job_id: what submit_slurm_job returned.

    Raises:
        SlurmError: there is no such job.
    """
    try:
        return _fields(job_id)["JobState"]
    except SlurmError:
        # slurmctld has forgotten it (MinJobAge); the accounting has not.
        states = _slurm("sacct", f"--jobs={job_id}", "--allocations", "--noheader", "--parsable2", "--format=State")
        if not states.strip():
            raise
        return states.split()[0]


def get_job_output(job_id: int, timeout: float = 60) -> str:
    """What a job has written, once it has ended.

    Args:
        job_id: what submit_slurm_job returned.
        timeout: seconds to wait for the job's end.

    Raises:
        SlurmError: there is no such job, or Slurm does not know any more where it wrote.
        TimeoutError: it has not ended by then.
    """
    deadline = time.monotonic() + timeout
    while (state := check_job_status(job_id)) not in FINAL:
        if time.monotonic() > deadline:
            raise TimeoutError(f"job {job_id} is {state} after {timeout:.0f} s")
        time.sleep(0.2)
    return Path(_fields(job_id)["StdOut"]).read_text()


def main() -> None:
    """Submit a job that says hello, and show its states and its output."""
    job_id = submit_slurm_job("#!/bin/bash\necho 'Hello from SLURM!'\n", "test_job")
    sys.stdout.write(f"job {job_id}: {check_job_status(job_id)}\n")
    output = get_job_output(job_id)
    sys.stdout.write(f"job {job_id}: {check_job_status(job_id)}\n{output}")


if __name__ == "__main__":
    main()
