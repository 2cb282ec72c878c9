"""The release that the matrix's own tests run it on: one, for the matrix does the same on every other."""

from __future__ import annotations

import pytest

from slurm_testbed import engine
from slurm_testbed.images import exists, image_name
from slurm_testbed.releases import Release, Releases


@pytest.fixture(scope="session")
def built_release() -> Release:
    """The newest release whose images are here."""
    client = engine.connect()
    built = [release for release in Releases.load().all if exists(client, image_name("slurm-single-node", release))]
    assert built, "no release is built: invoke build"
    return built[-1]
