"""What each image holds: the release that its name says, complete, with its licences, ids and labels, and no fat."""

from __future__ import annotations

import re
import shlex

import pytest

from slurm_testbed import data
from slurm_testbed.images import sizes, targets
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm
from tests.images.conftest import RUNNABLE, Image

all_images = pytest.mark.parametrize("target", RUNNABLE)
#: Megabytes, uncompressed.
BUDGETS = {
    "slurm-client": 120,
    "slurm-single-node": 190,
    "slurm-jupyter": 460,
    "jupyterhub": 660,
    "observability": 265,
    "slurm-viz": 215,
    "app-sessions": 280,
}
#: What libraries of another suite may add to it: bullseye's bring ICU.
PACKAGED_BUDGET = 45
#: What the program says of itself: SchedMD's name, and Debian's.
NAMES = {"compiled": "slurm", "packaged": "slurm-wlm"}
USERS = {
    "munge": 64029,
    "slurm": 64030,
    "slurmrestd": 64031,
    "mysql": 64032,
    "alice": 1000,
    "bob": 1001,
    "carol": 1002,
    "dave": 1003,
}
PERSONS = ("alice", "bob", "carol", "dave")
ARCHITECTURE = re.compile(
    r"x86[-_]64|amd64|i[3-6]86|aarch64|arm64|armhf|armv\d|ppc64\w*|powerpc64\w*|s390x|riscv64|loong\w*64", re.IGNORECASE
)


def ability_file(ability: str) -> str:
    """Where an ability of releases.yaml shows in the install tree."""
    return {
        # Before it became a plugin of its own (cgroup_plugins), cgroup v1 was part of those that use it.
        "cgroup_v1": "/usr/lib/slurm/proctrack_cgroup.so",
        "cgroup_plugins": "/usr/lib/slurm/cgroup_*.so",
        "conmgr_counts_cpus": "/usr/lib/slurm/libslurmfull.so",
        "dynamic_node_ports": "/usr/sbin/slurmd",
        "dynamic_nodes": "/usr/sbin/slurmd",
        "first_job_id": "/usr/lib/slurm/libslurmfull.so",
        "health_endpoints": "/usr/sbin/slurmctld",
        "jwks": "/usr/lib/slurm/auth_jwt.so",
        "mysql": "/usr/lib/slurm/accounting_storage_mysql.so",
        "pam": "/lib/*/security/pam_slurm.so",
        "pmix": "/usr/lib/slurm/mpi_pmix*.so",
        "sackd": "/usr/sbin/sackd",
        "serializer_plugins": "/usr/lib/slurm/serializer_*.so",
        "slurmrestd": "/usr/sbin/slurmrestd",
        "sluid_cgroups": "/usr/lib/slurm/libslurmfull.so",
        "unshare_optional": "/usr/sbin/slurmrestd",
    }.get(ability, f"/usr/lib/slurm/{ability}.so")


def missing(slurm: Slurm, patterns: list[str]) -> list[str]:
    """Those shell patterns that no file in the image has."""
    script = 'for pattern; do compgen -G "$pattern" > /dev/null || echo "$pattern"; done'
    return slurm.run(["bash", "-c", script, "bash", *patterns]).stdout.split()


# --- names, labels, versions -----------------------------------------------------------------------------


@pytest.mark.row("C-05.1")
def test_repository_names_the_images(monkeypatch: pytest.MonkeyPatch, slurm_release: Release) -> None:
    monkeypatch.setenv("REPOSITORY", "registry.example.org/hpc")

    tags = targets(release=slurm_release)

    for target in RUNNABLE:
        prefix = f"registry.example.org/hpc/{target}"
        assert tags[target] == [f"{prefix}:{slurm_release}", f"{prefix}:{slurm_release.minor}"]


@pytest.mark.row("C-05.2", "U-01.3", "U-01.4")
@all_images
@pytest.mark.smoke
def test_slurm_is_the_version_that_the_name_says(image: Image, inside: Slurm) -> None:
    for program in ("slurmctld", "slurmd", "slurmrestd"):
        said = inside.run([program, "-V"]).stdout.split()

        assert said == [NAMES[image.slurm], image.release.version], f"{program} -V: {said}"


@all_images
def test_both_tags_are_one_image(image: Image) -> None:
    minor = image.name.replace(image.release.version, image.release.minor)

    assert image.client.images.get(minor).id == image.client.images.get(image.name).id


@all_images
@pytest.mark.smoke
def test_labels_say_what_is_in_it(image: Image) -> None:
    labels = image.labels
    oci = {name: labels.get(f"org.opencontainers.image.{name}", "") for name in
           ("title", "description", "version", "revision", "source", "licenses", "base.name")}  # fmt: skip

    assert oci["title"] == image.target
    assert oci["version"] == image.release.version
    assert oci["source"].startswith("https://")
    assert re.fullmatch(r"[\w.+-]+( (AND|OR|WITH) [\w.+-]+)*", oci["licenses"]), oci["licenses"]
    assert {"GPL-2.0-or-later", "Apache-2.0"} <= set(oci["licenses"].split())
    assert not [name for name, value in oci.items() if not value or value == "unknown"], oci
    assert labels["org.slurm-testbed.interface"] == "1"
    assert labels["org.slurm-testbed.release"] == image.release.version
    assert labels["org.slurm-testbed.support-end"] == str(image.release.support_end)
    assert labels["org.slurm-testbed.source"]


@all_images
@pytest.mark.smoke
def test_release_env_is_what_releases_yaml_says(image: Image, inside: Slurm) -> None:
    settings = dict(
        line.split("=", 1)
        for line in inside.read("/usr/share/slurm-testbed/release.env").splitlines()
    )  # fmt: skip
    abilities = shlex.split(settings["SLURM_ABILITIES"])[0].split()

    assert settings["SLURM_RELEASE"] == image.release.version
    of_image = image.release.packaged() if image.slurm == "packaged" else image.release
    assert set(abilities) == of_image.abilities
    assert missing(inside, [ability_file(ability) for ability in abilities]) == []
    assert ("packages" in settings["SLURM_SOURCE"]) == (image.slurm == "packaged")
    if image.release.patches:
        prefix = image.release.patches.match.rstrip("*")
        assert prefix in settings["SLURM_SOURCE"], "the source does not name its security patches"


# --- files -----------------------------------------------------------------------------------------------


@all_images
def test_plugins_and_tools_are_there(image: Image, inside: Slurm) -> None:
    has = image.release.has
    plugins = ["auth_munge", "auth_jwt", "rest_auth_jwt", "accounting_storage_mysql", "accounting_storage_slurmdbd"]
    plugins += ["cgroup_v1", "cgroup_v2"] if has("cgroup_plugins") else ["proctrack_cgroup"]
    plugins += ["serializer_json", "serializer_yaml"] if has("serializer_plugins") else []
    plugins += ["select_cons_tres"]
    plugins += ["task_affinity", "task_cgroup", "proctrack_linuxproc", "jobacct_gather_linux", "job_submit_lua"]
    tools = "sacct sacctmgr salloc sattach sbatch sbcast scancel scontrol sdiag sinfo sprio squeue sreport sshare srun"
    patterns = [f"/usr/lib/slurm/{plugin}.so" for plugin in plugins]
    patterns += [f"/usr/bin/{tool}" for tool in [*tools.split(), "sstat", "strigger", "munge", "unmunge"]]
    patterns += ["/lib/*/security/pam_slurm.so", "/lib/*/security/pam_slurm_adopt.so"]

    assert missing(inside, patterns) == []


@pytest.mark.row("C-04a.3")
@all_images
def test_pam_finds_its_slurm_modules(image: Image, inside: Slurm) -> None:
    script = "cd /lib && ls -1 */security/pam_slurm.so */security/pam_slurm_adopt.so */security/pam_unix.so"
    folders = {line.rpartition("/")[0] for line in inside.run(["sh", "-c", script]).stdout.split()}

    assert len(folders) == 1, f"pam_slurm is not where PAM's own modules are: {folders}"


@pytest.mark.row("C-16.1", "C-16.2", "C-16.3", "C-16.4", "C-16.5")
@all_images
@pytest.mark.smoke
def test_slurmrestd_has_its_parts(image: Image, inside: Slurm) -> None:
    # Releases before 21.08 have the serializers in slurmrestd, those of 2025 and later the HTTP parser in a plugin.
    linked = {
        "libjwt": ["/usr/lib/slurm/auth_jwt.so"],
        "libyaml": ["/usr/lib/slurm/serializer_yaml.so", "/usr/sbin/slurmrestd"],
        "libjson-c": ["/usr/lib/slurm/serializer_json.so", "/usr/sbin/slurmrestd"],
        "libhttp_parser": ["/usr/lib/slurm/http_parser_libhttp_parser.so", "/usr/sbin/slurmrestd"],
    }
    for library, files in linked.items():
        file = next(file for file in files if not missing(inside, [file]))
        assert library in inside.run(["ldd", file]).stdout, f"{file} is not linked with {library}"
    plugins = inside.run(["sh", "-c", "ls /usr/lib/slurm"]).stdout
    for version in image.release.rest:
        assert f"{version.replace('.', '_')}.so" in plugins, f"no plugin for API version {version}"
        assert re.search(rf"(openapi|data_parser)_(\w+_)?{version.replace('.', '_')}\.so", plugins)


@all_images
def test_every_program_and_library_of_slurm_finds_its_libraries(image: Image, inside: Slurm) -> None:
    script = """
        find /usr/lib/slurm /usr/lib/libslurm* /usr/lib/*/security/pam_slurm* /usr/bin/s* /usr/sbin/s* \\
            /usr/bin/*munge* /usr/sbin/*munge* /usr/sbin/mariadbd /usr/bin/mariadb -type f -print0 2> /dev/null |
        xargs --null ldd 2> /dev/null
    """
    lines = inside.run(["sh", "-c", script], check=False).stdout.splitlines()
    files = [line for line in lines if line.endswith(":")]
    absent = {line.strip() for line in lines if "not found" in line}

    assert len(files) > 80, f"only {len(files)} programs and libraries were found"
    assert not absent, "\n".join(absent)


@all_images
def test_every_package_and_slurm_has_its_licence(image: Image, inside: Slurm) -> None:
    script = """
        dpkg-query --show --showformat='${Package}\\n' | sort -u | while read -r package; do
            [ -s "/usr/share/doc/$package/copyright" ] || echo "$package"
        done
    """
    without = inside.run(["sh", "-c", script]).stdout.split()

    assert without == [], "packages without their copyright file"
    if image.slurm == "packaged":
        assert "GNU General Public License" in inside.read("/usr/share/doc/slurm/copyright")
    else:
        assert "GNU GENERAL PUBLIC LICENSE" in inside.read("/usr/share/doc/slurm/COPYING")
        assert inside.read("/usr/share/doc/slurm/DISCLAIMER")


@all_images
def test_ids_are_fixed(image: Image, inside: Slurm) -> None:
    entries = [line.split(":") for line in inside.run(["getent", "passwd", *USERS]).stdout.splitlines()]
    groups = dict(line.split(":")[0:3:2] for line in inside.run(["getent", "group", *USERS]).stdout.splitlines())

    assert {name: int(uid) for name, _, uid, *_ in entries} == USERS
    assert {name: int(gid) for name, gid in groups.items()} == USERS
    for name, _, uid, gid, _, home, shell in entries:
        assert uid == gid, f"{name}'s primary group is {gid}"
        expected = (f"/home/{name}", "/bin/bash") if name in PERSONS else ("/nonexistent", "/usr/sbin/nologin")
        assert (home, shell) == expected, name


def test_nothing_under_images_names_an_architecture() -> None:
    found = []
    for path in sorted(data.images().rglob("*")):
        if path.is_file():
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
                # The spawn page shows a partition's architecture, and nothing more is done with it.
                if (match := ARCHITECTURE.search(line)) and '"architecture": ' not in line:
                    found.append(f"{path}:{number}: {match[0]}")

    assert not found, "\n".join(found)


@pytest.mark.smoke
@pytest.mark.parametrize("target", BUDGETS)
def test_size_is_within_its_budget(image: Image) -> None:
    megabytes = sizes(image.client, [image.name])[image.name].uncompressed / 1e6

    budget = BUDGETS[image.target] + (PACKAGED_BUDGET if image.slurm == "packaged" else 0)
    assert megabytes <= budget, f"{image.name} has {megabytes:.1f} MB"


@pytest.mark.parametrize("target", ["slurm-dev"])
def test_spank_plugin_compiles_and_loads(image: Image) -> None:
    plugin = """
        #include <slurm/slurm.h>
        #include <slurm/spank.h>
        SPANK_PLUGIN(example, 1);
        int slurm_spank_init(spank_t spank, int count, char **values) { return ESPANK_SUCCESS; }
    """
    script = """
        cd /tmp && cat > example.c && gcc -shared -fPIC -Wall -Werror -o example.so example.c &&
        echo 'int main(void) { return 0; }' > main.c && gcc -o main main.c -lslurm && ./main && nm -D example.so
    """
    done = image.run("sh", "-c", script, stdin=plugin)

    assert done.returncode == 0, done.stderr
    assert "slurm_spank_init" in done.stdout
    assert "plugin_version" in done.stdout
