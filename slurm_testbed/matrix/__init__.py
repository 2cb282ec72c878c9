"""Every release through every suite on every substrate: what `invoke matrix` runs and reports."""

from slurm_testbed.matrix.plan import Cell, Plan, plan, suites_of
from slurm_testbed.matrix.report import Report
from slurm_testbed.matrix.results import CellResult, Outcome
from slurm_testbed.matrix.run import run

__all__ = ["Cell", "CellResult", "Outcome", "Plan", "Report", "plan", "run", "suites_of"]
