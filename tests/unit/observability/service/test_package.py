"""The package: a node needs nothing of the service's, and what is imported is declared."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from fixtures.pins import pins
from slurm_testbed import data

PACKAGE = data.images() / "observability" / "slurm-observability"
PROJECT: Any = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
#: The service's own libraries cannot be imported: as on a node.
ON_A_NODE = """
import sys
sys.path.insert(0, {package!r})
for name in {names!r}:
    sys.modules[name] = None
{code}
"""


def names(requirements: list[str]) -> set[str]:
    """The packages of a list of requirements."""
    return {re.split(r"[>=<\[]", one)[0] for one in requirements}


def on_a_node(code: str, *missing: str) -> subprocess.CompletedProcess[str]:
    """Run code where only the base requirements are there, without some of these."""
    hidden = ["alembic", "fastapi", "limits", "prometheus_client", "psycopg", "pydantic_settings", "sqlalchemy", "jwt"]
    script = ON_A_NODE.format(package=str(PACKAGE), names=[*hidden, "uvicorn", "filelock", *missing], code=code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_schema_and_help_need_nothing_of_the_service() -> None:
    code = "import slurm_observability.schema\nfrom slurm_observability.cli import main\nmain(['--help'])"
    done = on_a_node(code)

    assert done.returncode == 0, done.stderr
    assert re.findall(r"^  (agent|check|service|token) ", done.stdout, re.MULTILINE) == [
        "agent",
        "check",
        "service",
        "token",
    ]


@pytest.mark.parametrize(
    ("command", "missing", "package"),
    [("service", "uvicorn", "slurm-observability[service]"), ("agent", "inotify_simple", "slurm-observability")],
)
def test_half_that_is_not_installed_says_what_is_missing(command: str, missing: str, package: str) -> None:
    done = on_a_node(f"from slurm_observability.cli import main\nmain([{command!r}])", missing)

    assert done.returncode == 1
    assert re.search(rf"{command} needs the Python package \w+: pip install '{re.escape(package)}'", done.stderr)


def test_tests_run_against_versions_that_the_package_allows() -> None:
    declared = names([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["service"]])

    assert declared <= names(list(pins()))


@pytest.mark.parametrize("half", ["service"])
def test_half_imports_only_what_is_declared(half: str) -> None:
    declared = {
        {"pyjwt": "jwt", "python-hostlist": "hostlist"}.get(name, name.replace("-", "_"))
        for name in names([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["service"]])
    }
    # FastAPI is a layer over starlette, and re-exports little of it.
    allowed = declared | {"slurm_observability", "starlette", "__future__"} | set(sys.stdlib_module_names)
    for path in (PACKAGE / "slurm_observability" / half).rglob("*.py"):
        imported = set(re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
        assert imported <= allowed, path
