"""A repository with a small checklist, and what `invoke rows` says there."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from fixtures import rows

SMALL_CHECKLIST = """
needs: {gpu: a GPU, registry: a registry}
sections:
  C:
    title: Images
    rows:
      C-01: one thing
      C-14:
        what: another munge key
        clauses:
          C-14.1: the client's error
          C-14.2: {what: the picture on a GPU, needs: [gpu]}
  V:
    title: Sessions
    rows:
      V-08: two sessions
"""

Show = Callable[..., dict[str, Any]]


@pytest.fixture
def repository(pytester: pytest.Pytester) -> pytest.Pytester:
    """A repository in a temporary folder, with a small checklist and this plugin."""
    pytester.makeini(
        f"[pytest]\npythonpath = {rows.ROOT}\naddopts = --import-mode=importlib --strict-markers "
        "-p fixtures.rows.plugin -p no:slurm-testbed -m 'not deep'\n"
        "markers =\n  row(*ids): rows\n  deep: takes minutes\n"
    )
    (pytester.mkdir("docs") / "checklist.yaml").write_text(SMALL_CHECKLIST, encoding="utf-8")
    return pytester


@pytest.fixture
def show(repository: pytest.Pytester) -> Show:
    """`rows.show` on that repository, as JSON, with the clauses and rows by their ids."""

    def shown(**options: Any) -> dict[str, Any]:
        output = io.StringIO()
        status = rows.show(Console(file=output), as_json=True, root=repository.path, **options)
        answer = json.loads(output.getvalue())
        of_rows = [row for section in answer["sections"] for row in section["rows"]]
        return {
            **answer,
            "status": status,
            "rows": {row["id"]: row["state"] for row in of_rows},
            "clauses": {clause["id"]: clause for row in of_rows for clause in row["clauses"]},
        }

    return shown


def saved(repository: pytest.Pytester) -> list[dict[str, Any]]:
    """The records of .results/rows.json."""
    records: list[dict[str, Any]] = json.loads((repository.path / rows.RESULTS).read_text())["results"]
    return records


def states(answer: dict[str, Any]) -> dict[str, str]:
    """The state of every clause."""
    return {id_: clause["state"] for id_, clause in answer["clauses"].items()}
