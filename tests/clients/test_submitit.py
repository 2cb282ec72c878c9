"""submitit, unmodified, on a real Slurm: https://github.com/facebookincubator/submitit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.clients.conftest import Sessions


@pytest.fixture
def seen(session: Sessions) -> Mapping[str, Any]:
    """What a session with submitit saw."""
    return session("submitit_session.py")


def test_function_runs_in_a_job_and_its_result_comes_back(seen: Mapping[str, Any], session: Sessions) -> None:
    assert seen["cluster"] == "slurm", "submitit found no Slurm on the PATH"
    one = seen["one"]
    assert one["job"] == one["id"]
    assert one["nodes"] == ["n1"] or one["nodes"] == ["n2"]
    records = session.slurm.sacct("--allocations", "--jobs", one["id"], "--format=JobName,User,NodeList")
    assert records == [{"JobName": "one", "User": session.user, "NodeList": one["nodes"][0]}]


def test_exception_travels_back_with_its_text(seen: Mapping[str, Any]) -> None:
    assert "ValueError: a value that nobody likes" in seen["error"]
    assert seen["states"]["failing"] == "FAILED"


def test_array_is_one_job_with_a_task_for_each_call(seen: Mapping[str, Any]) -> None:
    assert seen["squares"] == [0, 1, 4, 9]
    job = seen["array"][0].partition("_")[0]
    assert seen["array"] == [f"{job}_{task}" for task in range(4)]
    assert seen["states"]["array"] == "COMPLETED"


def test_tasks_on_two_nodes_know_their_ranks(seen: Mapping[str, Any]) -> None:
    assert [task["rank"] for task in seen["tasks"]] == [0, 1]
    assert [task["nodes"] for task in seen["tasks"]] == [["n1", "n2"]] * 2
    assert seen["states"]["two"] == "COMPLETED"


def test_job_is_cancelled(seen: Mapping[str, Any]) -> None:
    assert seen["running"] == {"state": "RUNNING", "done": False}
    assert seen["states"]["endless"].startswith("CANCELLED")


def test_sacct_tells_state_and_node(seen: Mapping[str, Any]) -> None:
    assert seen["states"]["one"] == "COMPLETED"
    assert seen["info"] == {"JobID": seen["one"]["id"], "State": "COMPLETED", "NodeList": seen["one"]["nodes"][0]}
