"""Time limits and sinfo's lines, read as Slurm means them."""

from __future__ import annotations

from datetime import timedelta

import jupyterhub_moss
import pytest
from jupyterhub_moss.utils import parse_timelimit
from jupyterhub_slurmspawner import MOSlurmSpawner
from jupyterhub_slurmspawner.limits import mebibytes, time_limit, written
from pydantic import ValidationError

from tests.unit.slurmspawner.conftest import Make

STOCK, OURS = jupyterhub_moss.MOSlurmSpawner, MOSlurmSpawner
HALF_AN_HOUR = timedelta(minutes=30)


@pytest.mark.row("M-04.5")
@pytest.mark.parametrize("text", ["30:00", "30"])
def test_minutes_are_minutes(text: str) -> None:
    assert time_limit(text) == HALF_AN_HOUR
    assert parse_timelimit(text) == timedelta(hours=30), "jupyterhub-moss reads it right now: ours can go"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0:30:00", HALF_AN_HOUR),
        ("1:30", timedelta(seconds=90)),
        ("1-12", timedelta(hours=36)),
        ("1-12:30", timedelta(hours=36, minutes=30)),
        ("2-00:00:01", timedelta(days=2, seconds=1)),
        ("infinite", timedelta.max),
        ("UNLIMITED", timedelta.max),
    ],
)
def test_time_limit_is_read_in_each_of_slurms_forms(text: str, limit: timedelta) -> None:
    assert time_limit(text) == limit


@pytest.mark.parametrize("text", ["", "1h", "1-", "1:2:3:4", "-1", "1 ", "9999999999-0"])
def test_what_is_no_time_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time limit of Slurm"):
        time_limit(text)


@pytest.mark.parametrize("limit", [timedelta(minutes=1), HALF_AN_HOUR, timedelta(hours=36), timedelta(seconds=59)])
def test_time_limit_is_written_as_it_is_read(limit: timedelta) -> None:
    assert time_limit(written(limit)) == limit


def test_memory_is_read_with_and_without_a_unit() -> None:
    assert [mebibytes(text) for text in ("0", "512", "1G", "2t", "2048K", "4GB")] == [0, 512, 1024, 2097152, 2, 4096]


def resources(make_spawner: Make, kind: type, sinfo: str) -> dict[str, dict[str, object]]:
    """What a spawner makes of sinfo's output."""
    found = make_spawner(kind).slurm_info_resources(sinfo)
    return {name: partition.model_dump() for name, partition in found.items()}


@pytest.mark.row("M-04.4")
def test_partition_without_nodes_is_one_of_the_table(make_spawner: Make) -> None:
    sinfo = "debug 0/2/0/2 4 0/8/0/8 (null) 8000 infinite\nempty 0/0/0/0 0 0/0/0/0 (null) 0 infinite"

    empty = resources(make_spawner, OURS, sinfo)["empty"]

    assert (empty["nnodes_total"], empty["ncores_total"], empty["max_ngpus"]) == (0, 0, 0)
    with pytest.raises(ValidationError):
        resources(make_spawner, STOCK, sinfo)


@pytest.mark.row("M-04.3")
def test_partition_of_several_kinds_of_nodes_counts_them_all(make_spawner: Make) -> None:
    """https://github.com/silx-kit/jupyterhub_moss/issues/125"""
    sinfo = "mixed 1/2/0/3 4 2/10/0/12 (null) 8000 1:00:00\nmixed 0/1/1/2 16 0/16/16/32 gpu:a100:2(S:0,1) 64000 1:00:00"

    ours, stock = (resources(make_spawner, kind, sinfo)["mixed"] for kind in (OURS, STOCK))

    assert ours == {
        "nnodes_total": 5, "nnodes_idle": 3, "ncores_total": 44, "ncores_idle": 26,
        "max_nprocs": 16, "max_mem": 64000, "gpu": "gpu:a100:{}", "max_ngpus": 2, "max_runtime": 3600,
    }  # fmt: skip
    assert (stock["nnodes_total"], stock["ncores_total"]) == (2, 32), "jupyterhub-moss counts right now: ours can go"


@pytest.mark.row("M-04.2")
def test_down_nodes_are_counted_and_not_idle(make_spawner: Make) -> None:
    down = resources(make_spawner, OURS, "debug 0/1/3/4 2 0/2/6/8 (null) 1000 30:00")["debug"]

    assert (down["nnodes_idle"], down["nnodes_total"], down["ncores_idle"]) == (1, 4, 2)
    assert down["max_runtime"] == 1800


@pytest.mark.parametrize(
    ("gres", "ours", "stock"),
    [
        ("gpu:4", ("gpu:{}", 4), ("", 0)),
        ("gpu:2(S:0-1)", ("gpu:{}", 2), ("", 0)),
        ("craynetwork:1,gpu:v100:8(S:0,1),gpu:a100:2", ("gpu:v100:{}", 8), ("gpu:a100:{}", 2)),
        ("gpu:a100:2", ("gpu:a100:{}", 2), ("gpu:a100:{}", 2)),
    ],
)
def test_gpus_are_found_with_and_without_a_type(
    make_spawner: Make, gres: str, ours: tuple[str, int], stock: tuple[str, int]
) -> None:
    sinfo = f"gpus 0/1/0/1 4 0/4/0/4 {gres} 1000 infinite"
    found = [resources(make_spawner, kind, sinfo)["gpus"] for kind in (OURS, STOCK)]

    assert [(one["gpu"], one["max_ngpus"]) for one in found] == [ours, stock]


def test_large_numbers_come_with_a_unit(make_spawner: Make) -> None:
    large = resources(make_spawner, OURS, "big 0/2K/0/2K 1K 0/2M/0/2M (null) 1000+ infinite")["big"]

    assert (large["nnodes_total"], large["ncores_idle"], large["max_nprocs"]) == (2048, 2097152, 1024)
