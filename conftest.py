"""Load the fixtures of this repository's own tests; the plugin itself comes by its entry point."""

from __future__ import annotations

pytest_plugins = [
    "pytester",
    "fixtures.made",  # before those that import it: pytest rewrites the asserts of what is not imported yet
    "fixtures.browser",
    "fixtures.charts",
    "fixtures.cluster",
    "fixtures.hub",
    "fixtures.exporter",
    "fixtures.images",
    "fixtures.observability",
    "fixtures.rows.plugin",
    "fixtures.tasks",
    "fixtures.viz",
    "fixtures.app_sessions",
]
