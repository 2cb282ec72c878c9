"""The build itself: a Slurm in which one part is missing is not shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_testbed import data
from slurm_testbed.releases import Release
from tests.images.conftest import Image

#: A finished tree without one file, as the stage slurm-build would hand it to `assemble`.
SCRIPT = """
set -e
security=$(dirname "$(readlink -f /lib/*/security/pam_slurm.so)")
mkdir -p /out/usr/lib /out/usr/sbin /out/usr/include "/out$security" /src/slurm
cp -a /usr/lib/slurm /out/usr/lib/
cp -a /usr/sbin/slurm* /out/usr/sbin/
cp -a "$security"/pam_slurm*.so "/out$security/"
cp /usr/share/doc/slurm/* /src/slurm/
echo tests > /src/origin
echo '  Version: {version}' > /src/slurm/META
rm {missing}
cd /src
bash -s <<'ASSEMBLE'
{assemble}
ASSEMBLE
"""


has_cgroup_plugins = pytest.mark.requires("cgroup_plugins")
has_serializers = pytest.mark.requires("serializer_plugins")


@pytest.mark.row("C-16.6")
@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("/out/usr/sbin/slurmrestd", "without slurmrestd"),
        ("/out/usr/lib/slurm/auth_jwt.so", "without auth_jwt"),
        ("/out/usr/lib/slurm/rest_auth_jwt.so", "without rest_auth_jwt.so"),
        pytest.param("/out/usr/lib/slurm/serializer_json.so", "without serializer_json.so", marks=has_serializers),
        pytest.param("/out/usr/lib/slurm/serializer_yaml.so", "without serializer_yaml.so", marks=has_serializers),
        pytest.param("/out/usr/lib/slurm/cgroup_v2.so", "without cgroup_v2", marks=has_cgroup_plugins),
        ("/out/usr/lib/slurm/accounting_storage_mysql.so", "without mysql"),
        ("$(find /out -name pam_slurm.so)", "without PAM support"),
    ],
)
def test_build_fails_when_a_part_is_missing(
    image_of: Callable[[str, Release], Image], slurm_release: Release, missing: str, named: str
) -> None:
    assemble = Path(data.images(), "slurm", "build", "assemble").read_text()
    script = SCRIPT.format(version=slurm_release.version, missing=missing, assemble=assemble)

    done = image_of("slurm-dev", slurm_release).run(options=["--entrypoint=bash"], stdin=script)

    assert done.returncode == 1, done.stdout
    assert f"Slurm {slurm_release.version} was built {named}" in done.stderr


def test_complete_tree_is_accepted(image_of: Callable[[str, Release], Image], slurm_release: Release) -> None:
    assemble = Path(data.images(), "slurm", "build", "assemble").read_text()
    script = SCRIPT.format(version=slurm_release.version, missing="-f /nothing", assemble=assemble)

    done = image_of("slurm-dev", slurm_release).run(options=["--entrypoint=bash"], stdin=script)

    assert done.returncode == 0, done.stderr
