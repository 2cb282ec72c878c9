"""Samples, what they come to, and what they should come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Unit = Literal["s", "ms", "%", "MB"]
Verdict = Literal["met", "missed", "undecided"]


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that so many percent of the samples do not exceed (nearest rank).

    Args:
        samples: at least one; of fewer than 100 the 99th percentile is the largest.
        percent: above 0, at most 100.

    Example:
        >>> percentile([3, 1, 2], 99), percentile(range(1, 101), 99)
        (3, 99)
    """
    ordered = sorted(samples)
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


@dataclass(frozen=True)
class Goal:
    """What a row should come to on a quiet machine with 2 cores.

    Attributes:
        statistic: of which value: `median`, `p99`, or `failed`, the number of failed samples.
        limit: the largest value that meets it, in the row's unit.
        over_bare: whether a bare start is taken off first.
        least: samples that it takes to call it met; a miss needs no more than one.
    """

    statistic: Literal["median", "p99", "failed"]
    limit: float
    over_bare: bool = False
    least: int = 1

    def value(self, row: Row, bare: float | None) -> float | None:
        """What the row came to; None where it has no samples, or no bare start to compare with."""
        if self.statistic == "failed":
            return float(len(row.failures)) if row.attempts else None
        found = row.median if self.statistic == "median" else row.p99
        if found is None or not self.over_bare:
            return found
        return None if bare is None else found - bare

    def verdict(self, row: Row, bare: float | None) -> Verdict:
        """Whether the row meets it; undecided where nothing, or too little, was measured."""
        found = self.value(row, bare)
        if found is None:
            return "missed" if row.failures else "undecided"
        if found > self.limit:
            return "missed"
        enough = row.attempts if self.statistic == "failed" else len(row.samples)
        return "met" if enough >= self.least else "undecided"

    def text(self, unit: Unit) -> str:
        """The goal in words."""
        if self.statistic == "failed":
            return f"{self.limit:g} failed of {self.least}"
        what = "" if unit == "MB" else f"{self.statistic} "
        return f"{what}≤ {self.limit:g} {unit}{' over bare' if self.over_bare else ''}"


@dataclass
class Row:
    """One line of the table: samples of one quantity.

    Attributes:
        name: short, for JSON.
        title: what is measured, in words.
        goals: what it should come to.
        unit: of the samples.
        count: how many jobs or requests one sample is of.
        samples: what was measured.
        failures: why a sample failed, one text for each.
    """

    name: str
    title: str
    goals: tuple[Goal, ...] = ()
    unit: Unit = "s"
    count: int = 1
    samples: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        """Samples and failures together."""
        return len(self.samples) + len(self.failures)

    @property
    def median(self) -> float | None:
        """The median of the samples; None where there are none."""
        return statistics.median(self.samples) if self.samples else None

    @property
    def p99(self) -> float | None:
        """The 99th percentile of the samples; None where there are none."""
        return percentile(self.samples, 99) if self.samples else None

    @property
    def per_second(self) -> float | None:
        """Jobs or requests per second at the median; None for a row of single things."""
        return self.count / self.median if self.count > 1 and self.median else None

    def multiple(self, bare: float | None) -> float | None:
        """The median as a multiple of a bare start; None where that means nothing."""
        return self.median / bare if self.unit == "s" and self.median is not None and bare else None
