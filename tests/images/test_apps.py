"""What the images of applications hold, in which no Slurm is: labels, licences, libraries, persons, and no password."""

from __future__ import annotations

import re

import pytest

from slurm_testbed.slurm import Slurm
from tests.images.conftest import Image

all_apps = pytest.mark.parametrize("target", ["viz-app", pytest.param("viz-app-xfce", marks=pytest.mark.deep)])


@all_apps
def test_labels_say_what_is_in_it(image: Image) -> None:
    labels = image.labels
    oci = {name: labels.get(f"org.opencontainers.image.{name}", "") for name in
           ("title", "description", "revision", "source", "licenses", "base.name")}  # fmt: skip

    assert oci["title"] == image.target
    assert re.fullmatch(r"[\w.+-]+( (AND|OR|WITH) [\w.+-]+)*", oci["licenses"]), oci["licenses"]
    assert not [name for name, value in oci.items() if not value or value == "unknown"], oci
    assert labels["org.slurm-testbed.interface"] == "1"
    assert "org.slurm-testbed.release" not in labels, "no release of Slurm is in it"


@all_apps
def test_every_package_has_its_licence(inside: Slurm) -> None:
    script = """
        dpkg-query --show --showformat='${Package}\\n' | sort -u | while read -r package; do
            [ -s "/usr/share/doc/$package/copyright" ] || echo "$package"
        done
        [ -s /usr/share/doc/novnc/copyright ] || echo novnc
    """
    assert inside.run(["sh", "-c", script]).stdout.split() == [], "packages without their copyright file"


@all_apps
def test_every_program_finds_its_libraries(inside: Slurm) -> None:
    script = "find /usr/bin /usr/sbin -type f -print0 | xargs --null ldd 2> /dev/null"
    lines = inside.run(["sh", "-c", script], check=False).stdout.splitlines()

    assert {"/usr/bin/Xtigervnc:", "/usr/bin/gedit:", "/usr/bin/xterm:"} <= set(lines)
    assert [line.strip() for line in lines if "not found" in line] == []


@all_apps
def test_it_has_no_slurm_and_runs_as_a_person(image: Image, inside: Slurm) -> None:
    assert image.client.images.get(image.name).attrs["Config"]["User"] == "alice"
    assert inside.run(["sh", "-c", "ls -d /usr/lib/slurm /usr/sbin/slurm*"], check=False).stdout == ""
