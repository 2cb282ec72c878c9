"""No layer of any image holds a secret, a password or a package list, nor did one that a later layer covers."""

from __future__ import annotations

import io
import json
import re
import secrets
import tarfile
from collections.abc import Callable, Iterable, Iterator

import docker
import pytest

from slurm_testbed.releases import Release
from tests.images.conftest import APPS, RUNNABLE, Image, LayerFile, layer_files, our_labels

PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\r?\n[\w+/=\r\n:, -]{20}")
SECRET_PLACES = re.compile(
    r"etc/munge/.+|run/secrets/.+|etc/ssl/private/.+|etc/ssh/ssh_host_.*_key|"
    r"(?:root|home/[^/]+)/(?:\.docker|\.ssh|\.aws|\.config/gh|\.gnupg|\.cache)/.+|"
    r"(?:.*/)?(?:\.netrc|\.npmrc|\.pypirc|\.git-credentials|\.pgpass|pip\.conf|id_(?:rsa|dsa|ecdsa|ed25519))|"
    r"(?:.*/)?[^/]*\.(?:key|p12|pfx|jks|keytab|kdbx)|(?:.*/)?ca-bundle[^/]*"
)
#: A URL with a password, in what people configure.
CREDENTIAL = re.compile(rb"://[^/\s:@]+:[^/\s@]+@")
SETTINGS = re.compile(r"(?:etc|root|home)/.*")
LEFT_BEHIND = re.compile(
    r"var/lib/apt/lists/(?!lock$).+|var/cache/apt/.+\.(?:deb|bin)|"
    r"(?:root|home/[^/]+)/\.cache/.+|var/lib/mysql/.+|var/spool/slurm.+|src/.+"
)
SECRET_NAME = re.compile(r"passw|passphrase|secret|token|credential|(?:^|_)key(?:$|_)|api_?key", re.IGNORECASE)
SECRET_ASSIGNED = re.compile(r"(?i)(?:passw(?:or)?d|secret|token|api_?key)\s*=\s*['\"]?\w")


def secrets_in(files: Iterable[LayerFile]) -> Iterator[str]:
    """What is a secret, by its place or by its content."""
    for file in files:
        if file.size and SECRET_PLACES.fullmatch(file.path):
            yield f"{file}: a place for secrets"
        elif PRIVATE_KEY.search(file.content):
            yield f"{file}: a private key"
        elif SETTINGS.fullmatch(file.path) and CREDENTIAL.search(file.content):
            yield f"{file}: a URL with a password"


def passwords_in(files: Iterable[LayerFile]) -> Iterator[str]:
    """Accounts that a password opens, or that need none."""
    for file in files:
        if re.fullmatch(r"etc/g?shadow-?", file.path):
            for line in file.content.decode().splitlines():
                user, password = line.split(":")[:2]
                # Groups have an empty field: none of them can be joined by a password.
                if password not in {"*", "!", "!*", "!!"} and not (not password and "gshadow" in file.path):
                    yield f"{user} has a password, or needs none, in {file}"


def left_in(files: Iterable[LayerFile]) -> Iterator[str]:
    """What only costs space, or is state of the build."""
    return (f"{file}: left behind" for file in files if file.size and LEFT_BEHIND.fullmatch(file.path))


@pytest.mark.deep
def test_no_layer_holds_a_secret_a_password_or_package_lists(saved_files: list[LayerFile]) -> None:
    assert any(file.path == "etc/shadow" for file in saved_files), "no layer has /etc/shadow: nothing was read"

    found = [*secrets_in(saved_files), *passwords_in(saved_files), *left_in(saved_files)]

    assert not found, "\n".join(found[:30])


@pytest.fixture
def planted(docker_client: docker.DockerClient) -> Iterator[str]:
    """An image whose first layer has secrets that its second one covers."""
    armour = [f"-----{word} PRIVATE KEY-----" for word in ("BEGIN", "END")]
    bad = {
        "etc/munge/munge.key": secrets.token_bytes(128),
        "opt/any-name": f"{armour[0]}\n{secrets.token_hex(32)}\n{armour[1]}\n".encode(),
        "etc/apt/sources.list": b"deb https://me:word@example.org/debian trixie main\n",
        "etc/shadow": b"alice:$y$j9T$salt$hash:20000::::::\ncarol::20000::::::\nbob:!:20000::::::\n",
    }
    context = {
        "Dockerfile": b"FROM scratch\nCOPY bad /\nCOPY good /\n",
        **{f"bad/{path}": data for path, data in bad.items()},
        **{f"good/{path}": b"" for path in bad},
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data in context.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    name = f"slurm-testbed-planted:{secrets.token_hex(4)}"
    labels = our_labels(name)
    docker_client.images.build(
        fileobj=io.BytesIO(buffer.getvalue()), custom_context=True, tag=name, labels=labels, rm=True
    )
    yield name
    docker_client.images.remove(name, force=True)


def test_planted_secrets_are_found_though_a_later_layer_covers_them(
    docker_client: docker.DockerClient, planted: str
) -> None:
    files = layer_files(docker_client, [planted])

    found = "\n".join(secrets_in(files))
    for path in ("etc/munge/munge.key", "opt/any-name", "etc/apt/sources.list"):
        assert path in found, f"{path} was not found in:\n{found}"
    assert [line.split()[0] for line in passwords_in(files)] == ["alice", "carol"]


@pytest.mark.parametrize("target", [*RUNNABLE, *APPS])
def test_environment_and_history_name_no_secret(image: Image) -> None:
    found = image.client.images.get(image.name)
    names = [entry.partition("=")[0] for entry in found.attrs["Config"]["Env"]]
    steps = [step["CreatedBy"] for step in found.history()]

    assert not [name for name in names if SECRET_NAME.search(name)], names
    assert not [step for step in steps if SECRET_ASSIGNED.search(step) or CREDENTIAL.search(step.encode())]


def test_database_holds_no_cluster_no_job_and_no_password(image: Image) -> None:
    script = """
        set -e
        bash /usr/share/slurm-testbed/services/mariadbd/run > /dev/null 2>&1 &
        sql() { mariadb --no-defaults --skip-ssl --socket=/run/mysqld/mysqld.sock --skip-column-names --batch -e "$1"; }
        for attempt in $(seq 300); do sql 'select 1' > /dev/null 2>&1 && break; sleep 0.05; done
        sql 'select count(*) from slurm_acct_db.cluster_table'
        for table in $(sql "select table_name from information_schema.tables
                            where table_schema = 'slurm_acct_db' and table_name regexp '^testbed_|^txn_'"); do
          sql "select count(*) from slurm_acct_db.$table"
        done | sort -n | tail -n 1
        sql "select json_object('user', user, 'host', host, 'priv', priv) from mysql.global_priv"
    """
    done = image.run(stdin=script, options=["--entrypoint=bash"])

    assert done.returncode == 0, done.stderr
    clusters, rows, *users = done.stdout.splitlines()
    assert clusters == "0", "the image has a row for a cluster"
    assert rows == "0", "the tables for a cluster of the default name are not empty"
    accounts = [json.loads(user) for user in users]
    assert {(account["user"], account["host"]) for account in accounts} >= {("slurm", "localhost")}
    for account in accounts:
        password = account["priv"].get("authentication_string", "")
        assert account["host"] == "localhost", f"{account['user']} may come from {account['host']}"
        # "invalid" is no hash of any password.
        assert password in {"", "invalid"}, f"{account['user']} has a password"


def test_two_containers_make_different_keys(slurm_release: Release, image_of: Callable[[str, Release], Image]) -> None:
    client = image_of("slurm-client", slurm_release)
    command = ["sha256sum", "/etc/munge/munge.key"]

    first, second = (client.run(*command, options=["--env=SLURM_TESTBED_USER=root"]).stdout for _ in range(2))

    assert len(first) > 64, first
    assert first != second, "two containers made the same munge key"
