"""A measure: what it is called, how its samples are made, and how they are taken."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import docker
import docker.errors
import requests

from slurm_testbed.bench.figures import Row
from slurm_testbed.bench.inside import Bench
from slurm_testbed.errors import SlurmTestbedError

#: This many failures one after another end a measure.
FAILURES_IN_A_ROW = 3


#: Yields one sample after another, by name of the row; closing it removes what it started.
Samples = Generator[Mapping[str, float], None, None]


@dataclass(frozen=True)
class Measure:
    """One thing that `--only` can name.

    Attributes:
        name: as in `--only NAME`.
        repeat: how many samples, unless asked otherwise.
        rows: the rows that a sample fills, without samples.
        samples: makes the samples.
        fixed: whether `--repeat` leaves the number alone.
        on_demand: whether it is left out unless it is asked for.
    """

    name: str
    repeat: int
    rows: tuple[Row, ...]
    samples: Callable[[Bench], Samples]
    fixed: bool = False
    on_demand: bool = False


def take(measure: Measure, bench: Bench, times: int) -> Generator[None, None, None]:
    """Take samples of a measure into its rows; yields after each, and ends early when all goes wrong.

    Args:
        measure: what to take.
        bench: what it works on.
        times: how many samples, failed ones included.
    """
    samples = measure.samples(bench)
    in_a_row = 0
    try:
        for _ in range(times):
            try:
                sample = next(samples)
            except (SlurmTestbedError, docker.errors.DockerException, requests.RequestException) as error:
                in_a_row += 1
                for row in measure.rows:
                    row.failures.append(str(error))
                samples = measure.samples(bench)  # a generator that raised has ended
            else:
                in_a_row = 0
                for row in measure.rows:
                    row.samples += [sample[row.name]] if row.name in sample else []
            yield
            if in_a_row == FAILURES_IN_A_ROW:
                return
    finally:
        samples.close()
