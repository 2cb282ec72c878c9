"""The charts render without a cluster: no test of this folder takes an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.charts import CHARTS, Chart


@pytest.fixture(params=CHARTS)
def chart(request: pytest.FixtureRequest, helm: Path) -> Chart:
    """Each chart by each Helm."""
    return Chart(request.param, helm)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], str]:
    """Writes a file of a name and returns its path."""

    def to(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return to
