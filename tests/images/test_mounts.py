"""The documents' own mounts: keys of any owner and mode, Slurm's files on the client, and what is wrong with some."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from slurm_testbed import ClusterKeys, SlurmContainer
from tests.images.conftest import Image

#: Asked as root: nobody else may read the key in use.
KEY_IN_USE = """
    file=/etc/munge/munge.key
    [ -e $file ] && ! grep -q " $file " /proc/self/mountinfo || file=/run/munge/munge.key
    stat --format='%U:%G %a' $file
    sha256sum < $file
    munge --no-input | unmunge | grep ^STATUS:
"""


class Source(NamedTuple):
    """What of a mounted file must stay as it is."""

    digest: str
    uid: int
    gid: int
    mode: int
    mtime: int

    @classmethod
    def of(cls, path: Path) -> Source:
        """Look at a file."""
        stat = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(digest, stat.st_uid, stat.st_gid, stat.st_mode, stat.st_mtime_ns)


def check_key_in_use(image: Image, key: Path, mount: str, extra: Sequence[str] = ()) -> None:
    """Start with a mounted key: it is in use as munge:munge 0400, munge works, and its source is as it was."""
    before = Source.of(key)
    options = [f"--volume={key}:{mount}", "--env=SLURM_TESTBED_USER=root", "--env=SLURM_ACCOUNTING=no", *extra]

    done = image.run("sh", "-c", KEY_IN_USE, options=options)

    assert done.returncode == 0, done.stderr
    owner, digest, status = done.stdout.splitlines()
    assert owner == "munge:munge 400"
    assert digest.split()[0] == before.digest, "another key is in use"
    assert "Success" in status
    assert Source.of(key) == before, "the mounted file was changed"


OWNERS_AND_MODES = pytest.mark.parametrize(
    ("uid", "mode"), [(0, 0o644), (12345, 0o400), (0, 0o777)], ids=["root 0644", "uid 12345 0400", "root 0777"]
)


@pytest.fixture
def give(not_checkable: Callable[[str, str], NoReturn]) -> Callable[[Path, int, int], None]:
    """Give a file to a user with a mode; only root can."""

    def change(path: Path, uid: int, mode: int) -> None:
        path.chmod(mode)
        if uid != os.getuid():
            if os.geteuid() != 0:
                not_checkable("root", "only root can give files away")
            os.chown(path, uid, uid)

    return change


@pytest.mark.row("C-07.1", "C-08.1", "C-08.2", "C-08.3", "C-08.4")
@OWNERS_AND_MODES
def test_single_node_uses_a_copy_of_a_key_of_any_owner_and_mode(
    image: Image, key_file: Path, give: Callable[[Path, int, int], None], uid: int, mode: int
) -> None:
    give(key_file, uid, mode)

    check_key_in_use(image, key_file, "/tmp/munge.key:ro")


@pytest.mark.row("C-07.1", "C-08.4")
def test_single_node_leaves_a_writable_mount_as_it_is(image: Image, key_file: Path) -> None:
    check_key_in_use(image, key_file, "/tmp/munge.key")


@pytest.mark.row("C-07.2", "C-08.1", "C-08.2", "C-08.3", "C-08.4")
@OWNERS_AND_MODES
def test_client_uses_a_copy_of_a_key_of_any_owner_and_mode(
    client_image: Image, key_file: Path, give: Callable[[Path, int, int], None], uid: int, mode: int
) -> None:
    give(key_file, uid, mode)

    check_key_in_use(client_image, key_file, "/tmp/munge/munge.key")


@pytest.mark.parametrize("place", ["/run/secrets/munge.key", "/tmp/munge.key", "/etc/munge/munge.key"])
def test_key_may_also_be_mounted_elsewhere(client_image: Image, key_file: Path, place: str) -> None:
    check_key_in_use(client_image, key_file, f"{place}:ro")


def test_key_of_a_secret_of_kubernetes_is_taken(client_image: Image, tmp_path: Path) -> None:
    """There a mounted key is a link to a link's folder, so that all files of a Secret change at once."""
    secret = tmp_path / "secret"
    (secret / "..1").mkdir(parents=True)
    (secret / "..data").symlink_to("..1")
    (secret / "munge.key").symlink_to("..data/munge.key")
    key = secret / "..1" / "munge.key"
    key.write_bytes(os.urandom(128))

    check_key_in_use(client_image, key, "/elsewhere", [f"--volume={secret}:/run/secrets:ro"])


def test_start_shows_the_keys_fingerprint_and_not_the_key(client_image: Image, key_file: Path) -> None:
    options = [f"--volume={key_file}:/tmp/munge/munge.key:ro", "--env=SLURM_TESTBED_VERBOSE=1"]
    key_file.write_text("0123456789abcdef" * 8)

    done = client_image.run("true", options=options)

    digest = hashlib.sha256(key_file.read_bytes()).hexdigest()[:16]
    assert f"SHA256:{digest} (from /tmp/munge/munge.key)" in done.stderr
    assert key_file.read_text()[:16] not in done.stderr + done.stdout


# --- what is wrong with a key ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "place"), [("slurm-single-node", "/tmp/munge.key"), ("slurm-client", "/tmp/munge/munge.key")]
)
def test_missing_key_file_is_told(image: Image, tmp_path: Path, place: str) -> None:
    # Docker makes a folder of this name.
    done = image.run("true", options=[f"--volume={tmp_path / 'missing.key'}:{place}"])

    assert done.returncode == 1
    assert f"{place} is a folder: Docker makes one where the file to mount is missing." in done.stderr
    assert "hint: make the key file first" in done.stderr


def test_short_key_is_told(image: Image, tmp_path: Path) -> None:
    key = tmp_path / "munge.key"
    key.write_bytes(bytes(31))

    done = image.run(options=[f"--volume={key}:/tmp/munge.key:ro"])

    assert done.returncode == 1
    assert "the key /tmp/munge.key has 31 bytes; a key has at least 32." in done.stderr
    assert "hint: make one: dd if=/dev/urandom" in done.stderr


def test_start_that_fails_ends_though_a_supervisor_comes_late(image: Image, tmp_path: Path) -> None:
    key = tmp_path / "munge.key"
    key.write_bytes(bytes(31))
    # On a busy machine s6-supervise may be told to end before it listens; here it always is.
    script = r"""
        cd /usr/bin && mv s6-supervise s6-supervise.real
        printf '#!/bin/bash\ntrap "" TERM\nsleep 2\nexec s6-supervise.real "$@"\n' > s6-supervise
        chmod +x s6-supervise
        exec slurm-entrypoint
    """
    options = [f"--volume={key}:/tmp/munge.key:ro", "--entrypoint=bash"]

    done = image.run("-c", script, options=options)

    assert (done.returncode, "the key /tmp/munge.key has 31 bytes" in done.stderr) == (1, True), done.stderr


def test_start_that_fails_ends_though_mariadbd_hears_no_signal(image: Image, tmp_path: Path) -> None:
    """As now and then a real one that is told to end while it starts: here one that never hears stands in for it."""
    key = tmp_path / "munge.key"
    key.write_bytes(bytes(31))
    # The key is looked at when mariadbd is there to be told.
    script = r"""
        stand_in() {
            path=$(type -P "$1"); mv "$path" "$path.real"; printf '#!/bin/bash\n%s\n' "$2" > "$path"; chmod +x "$path"
        }
        log=/var/log/slurm/mariadbd.log
        stand_in mariadbd "trap '' TERM; echo Starting as process 1 >> $log; exec sleep infinity"
        stand_in slurm-keys "until grep -qs Starting $log; do sleep 0.1; done; exec slurm-keys.real"
        exec slurm-entrypoint
    """
    options = [f"--volume={key}:/tmp/munge.key:ro", "--entrypoint=bash"]

    done = image.run("-c", script, options=options)

    assert (done.returncode, "the key /tmp/munge.key has 31 bytes" in done.stderr) == (1, True), done.stderr


def test_start_that_fails_ends_though_a_daemon_hears_no_signal(image: Image) -> None:
    script = r"""
        munged=$(type -P munged)
        printf '#!/bin/bash\ntrap "" TERM\nexec sleep infinity\n' > "$munged"
        exec slurm-entrypoint
    """

    done = image.run("-c", script, options=["--env=SLURM_TESTBED_DEADLINE=2", "--entrypoint=bash"])

    assert (done.returncode, "waited 2 s for munged's socket" in done.stderr) == (1, True), done.stderr


# --- configuration and passwords --------------------------------------------------------------------------


@OWNERS_AND_MODES
def test_slurmdbd_takes_a_file_of_any_owner_and_mode(
    image: Image,
    slurm_cluster: SlurmContainer,
    tmp_path: Path,
    give: Callable[[Path, int, int], None],
    uid: int,
    mode: int,
) -> None:
    """slurmdbd itself ends where the file is not slurm's, 0600."""
    conf = tmp_path / "slurmdbd.conf"
    text = slurm_cluster.read("/etc/slurm/slurmdbd.conf").replace(f"DbdHost={slurm_cluster.name}", "DbdHost=localhost")
    conf.write_text(text.partition("\n")[2] + "MaxQueryTimeRange=7-0\n")
    give(conf, uid, mode)
    before = Source.of(conf)

    with image.started(options=[f"--volume={conf}:/etc/slurm/slurmdbd.conf:ro"]) as slurm:
        assert "MaxQueryTimeRange      = 7-00:00:00" in slurm.run(["sacctmgr", "show", "configuration"]).stdout

    assert Source.of(conf) == before, "the mounted file was changed"


@pytest.mark.parametrize("target", ["jupyterhub"])
def test_passwords_of_a_mounted_file_are_all_that_there_are(image: Image, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text("root:*:20000:0:99999:7:::\nalice:$y$j9T$x$y:20000:0:99999:7:::\nbob:!:20000:0:99999:7:::\n")

    options = [f"--volume={shadow}:/etc/shadow", "--entrypoint=/usr/lib/slurm-testbed/user-passwords"]
    done = image.run("/tmp/passwords", options=options)

    assert done.returncode == 0, done.stderr
    assert "/etc/shadow is mounted and taken as it is" in done.stderr


# --- the client's own command in the document ------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.row("C-07.2", "C-07.3", "C-07.4", "C-07.5", "C-07.6")
def test_client_with_the_documents_mounts_speaks_to_the_cluster(
    client_image: Image, slurm_cluster: SlurmContainer, slurm_keys: ClusterKeys, tmp_path: Path
) -> None:
    contents = {
        "/tmp/munge/munge.key": slurm_keys.munge.data,
        "/etc/slurm/slurm.conf": slurm_cluster.read("/etc/slurm/slurm.conf").encode(),
        "/etc/slurm/slurmdbd.conf": slurm_cluster.read("/etc/slurm/slurmdbd.conf").encode(),
        "/etc/slurm/jwt_hs256.key": slurm_keys.jwt.data,
    }
    mounts = []
    for place, data in contents.items():
        path = tmp_path / Path(place).name
        path.write_bytes(data)
        mounts.append(f"--volume={path}:{place}")
    before = [Source.of(path) for path in sorted(tmp_path.iterdir())]
    typed = """
        slurm-entrypoint sinfo --noheader --format=%T < /dev/null || exit
        slurm-entrypoint srun hostname < /dev/null || exit
        slurm-entrypoint sbatch --parsable --output=/dev/null --wrap=true < /dev/null || exit
        sha256sum /etc/slurm/slurm.conf /etc/slurm/slurmdbd.conf /etc/slurm/jwt_hs256.key
    """
    options = ["--entrypoint=bash", f"--network={slurm_cluster.network_name}", *mounts]

    done = client_image.run(stdin=typed, options=options)

    assert done.returncode == 0, done.stderr
    state, host, job, *sums = done.stdout.splitlines()
    assert state in {"idle", "mixed", "allocated"}
    assert host == slurm_cluster.name
    assert slurm_cluster.job(int(job)).wait().state == "COMPLETED"
    for line in sums:
        digest, place = line.split()
        assert digest == hashlib.sha256(contents[place]).hexdigest(), f"{place} is not the mounted file"
    assert [Source.of(path) for path in sorted(tmp_path.iterdir())] == before, "a mounted file was changed"
