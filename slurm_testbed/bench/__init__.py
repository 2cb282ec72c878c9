"""How fast starts, jobs, REST, stops and builds are, against a bare `docker run … true` of the same run."""

from slurm_testbed.bench.benchmark import run
from slurm_testbed.bench.builds import cache_records, with_own_caches
from slurm_testbed.bench.catalogue import catalogue, choose
from slurm_testbed.bench.figures import Goal, Row, percentile
from slurm_testbed.bench.inside import Bench, on_our_clock, timed
from slurm_testbed.bench.measure import FAILURES_IN_A_ROW, Measure, Samples, take
from slurm_testbed.bench.report import Report

__all__ = [
    "FAILURES_IN_A_ROW",
    "Bench",
    "Goal",
    "Measure",
    "Report",
    "Row",
    "Samples",
    "cache_records",
    "catalogue",
    "choose",
    "on_our_clock",
    "percentile",
    "run",
    "take",
    "timed",
    "with_own_caches",
]
