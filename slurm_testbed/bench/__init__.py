"""How fast starts, jobs, REST, stops and builds are, against a bare `docker run … true` of the same run."""

from slurm_testbed.bench.benchmark import BARE_STARTS, run
from slurm_testbed.bench.builds import BUILT, cache_records, with_own_caches
from slurm_testbed.bench.catalogue import catalogue, choose
from slurm_testbed.bench.figures import Goal, Row, Unit, Verdict, percentile
from slurm_testbed.bench.inside import USER, Bench, on_our_clock, timed
from slurm_testbed.bench.measure import FAILURES_IN_A_ROW, Measure, Samples, take
from slurm_testbed.bench.report import Report
from slurm_testbed.bench.work import LISTED_JOBS, REQUESTS, THREADS

__all__ = [
    "BARE_STARTS",
    "BUILT",
    "FAILURES_IN_A_ROW",
    "LISTED_JOBS",
    "REQUESTS",
    "THREADS",
    "USER",
    "Bench",
    "Goal",
    "Measure",
    "Report",
    "Row",
    "Samples",
    "Unit",
    "Verdict",
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
