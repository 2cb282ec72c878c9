"""The service as a process: it listens, speaks TLS, and ends when it is asked to."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from slurm_observability.service import tokens
from slurm_observability.service.tokens import Role, Tokens

from slurm_testbed import data
from slurm_testbed.readiness import wait_until

PACKAGE = data.images() / "observability" / "slurm-observability"
MAIN = "from slurm_observability.cli import main; main()"
SECONDS = 60
Start = Callable[..., tuple[str, "subprocess.Popen[bytes]"]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the service on a free port; returns its address, and the process."""
    with contextlib.ExitStack() as stack:

        def begin(**settings: str) -> tuple[str, subprocess.Popen[bytes]]:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            own = {"PYTHONPATH": str(PACKAGE), "OBSERVABILITY_STATE_FOLDER": str(tmp_path), **settings}
            env = {"PATH": os.environ["PATH"], "OBSERVABILITY_PORT": str(port), **own}
            log = stack.enter_context((tmp_path / "log").open("ab"))
            process = subprocess.Popen([sys.executable, "-c", MAIN, "service"], env=env, stdout=log, stderr=log)
            stack.callback(process.wait, SECONDS)
            stack.callback(process.kill)

            def listens() -> bool | None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    return True
                return None

            def ended() -> str | None:
                return None if process.poll() is None else f"it ended with {process.returncode}"

            said = (tmp_path / "log").read_text
            wait_until(listens, "the service listening", deadline=SECONDS, give_up=ended, log=said)
            return f"127.0.0.1:{port}", process

        yield begin


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 for a day, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "observability")])
    at = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(at - datetime.timedelta(hours=1))
        .not_valid_after(at + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return cert_file, key_file


@pytest.mark.row("O-14.2")
def test_it_speaks_tls_and_nothing_else_where_it_has_a_certificate(start: Start, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    place, _ = start(OBSERVABILITY_TLS_CERT_FILE=str(cert), OBSERVABILITY_TLS_KEY_FILE=str(key))

    answer = requests.get(f"https://{place}/v1/health", verify=str(cert), timeout=SECONDS)
    assert answer.json()["status"] == "ok"
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"http://{place}/v1/health", timeout=SECONDS)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{place}/v1/health", timeout=SECONDS)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    host, port = place.split(":")
    with socket.create_connection((host, int(port)), SECONDS) as plain, old.wrap_socket(plain) as wrapped:
        assert wrapped.version() == "TLSv1.2"
    secret = tokens.new()
    Tokens(tmp_path / "tokens.json").add("page", Role.READER, secret)
    page = requests.post(f"https://{place}/session", json={"token": secret}, verify=str(cert), timeout=SECONDS)
    assert "Secure" in page.headers["set-cookie"]


def test_it_ends_when_it_is_asked_to_and_begins_anew(start: Start) -> None:
    place, process = start()
    assert requests.get(f"http://{place}/v1/health", timeout=SECONDS).json()["database"]["kind"] == "SQLite"

    process.send_signal(signal.SIGTERM)

    assert process.wait(SECONDS) in {0, -signal.SIGTERM}
    again, _ = start()
    assert requests.get(f"http://{again}/v1/health", timeout=SECONDS).status_code == 200


@pytest.mark.row("O-14.1")
def test_token_that_is_made_while_it_runs_is_known(start: Start, tmp_path: Path) -> None:
    place, _ = start()
    secret = tokens.new()
    headers = {"Authorization": f"Bearer {secret}"}
    assert requests.get(f"http://{place}/v1/jobs", headers=headers, timeout=SECONDS).status_code == 401

    Tokens(tmp_path / "tokens.json").add("late", Role.READER, secret)

    assert requests.get(f"http://{place}/v1/jobs", headers=headers, timeout=SECONDS).status_code == 200
