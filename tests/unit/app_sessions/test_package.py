"""The package: what is imported is declared, and tested in versions that it allows."""

from __future__ import annotations

import re
import sys
import tomllib
from typing import Any

from fixtures.pins import pins
from slurm_testbed import data

PACKAGE = data.images() / "app-sessions" / "app-sessions"
PROJECT: Any = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {"pyjwt": "jwt", "pyyaml": "yaml"}


def names(requirements: list[str]) -> set[str]:
    """The packages of a list of requirements."""
    return {re.split(r"[>=<\[]", one)[0] for one in requirements if re.match(r"\w", one)}


def test_image_and_tests_have_what_the_package_wants_in_the_same_versions() -> None:
    image = (data.images() / "app-sessions" / "requirements.txt").read_text().splitlines()

    assert names(PROJECT["dependencies"]) == names(image)
    assert {line for line in image if "==" in line} <= pins()


def test_package_imports_only_what_is_declared() -> None:
    declared = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names(PROJECT["dependencies"])}
    # FastAPI is a layer over starlette, and re-exports little of it.
    allowed = declared | {"app_sessions", "starlette", "__future__"} | set(sys.stdlib_module_names)
    for path in PACKAGE.rglob("*.py"):
        imported = set(re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
        assert imported <= allowed, path
