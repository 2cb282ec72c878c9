"""Grafana's dashboards: they ask for nothing but what the service shows, by labels that it has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from slurm_testbed import data
from tests.unit.observability.service.conftest import Api
from tests.unit.observability.service.test_metrics import READ

FOLDER = data.images() / "observability" / "grafana"
_METRIC = re.compile(r"\b((?:hpc|slurm)_[a-z_]+)(?:\{([^}]*)\})?")


@pytest.mark.row("O-14.4")
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_dashboard_asks_for_what_there_is(api: Api, path: Path) -> None:
    api.started()
    api.sample(READ, cpu_usage_percent=1, memory_usage_bytes=2)
    text = api.client.get("/metrics", headers=api.headers("reader")).text
    families = text_string_to_metric_families(text)
    there = {sample.name: {*sample.labels} for family in families for sample in family.samples}
    dashboard: Any = json.loads(path.read_text())
    variables = {one["name"]: one.get("definition", "") for one in dashboard["templating"]["list"]}
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    legends = [(target["expr"], target["legendFormat"]) for panel in dashboard["panels"] for target in panel["targets"]]

    assert dashboard["uid"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for expression in [*asked, *filter(None, variables.values())]:
        found = _METRIC.findall(expression)
        assert found, expression
        for name, selector in found:
            assert name in there, expression
            assert set(re.findall(r"(\w+)=", selector)) <= there[name], expression
        assert set(re.findall(r"\$(\w+)", expression)) <= variables.keys(), expression
    for expression, legend in legends:
        [(name, _), *_] = _METRIC.findall(expression)
        assert set(re.findall(r"{{(\w+)}}", legend)) <= there[name], legend
    for one in [*dashboard["panels"], *dashboard["templating"]["list"][1:]]:
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_dashboards_do_not_overlap_each_other() -> None:
    dashboards = [json.loads(path.read_text()) for path in FOLDER.glob("*.json")]
    assert len({one["uid"] for one in dashboards}) == len(dashboards) == 2
    for dashboard in dashboards:
        cells: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            mine = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not mine & cells, panel["title"]
            assert max(x for x, _ in mine) < 24, panel["title"]
            cells |= mine
