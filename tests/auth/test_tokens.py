"""Tokens: which are accepted, and that the others get no data."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest
import requests

from slurm_testbed import ClusterKeys
from slurm_testbed.errors import SlurmRestError
from slurm_testbed.keys import Key, jwt_token
from slurm_testbed.rest import Rest
from slurm_testbed.slurm import Slurm


def refused(slurm: Slurm, token: str | None, user: str = "alice") -> SlurmRestError:
    """The error of a request that needs authentication; `ping` answers 200 also without."""
    job = slurm.sbatch(wrap="true", hold=True, job_name="secret-name")
    with pytest.raises(SlurmRestError) as error:
        Rest(slurm.rest_url(), user, token, version=slurm.rest().version).job(job.id)
    assert error.value.status >= 400
    assert "secret-name" not in str(error.value.errors), "data of a job came with the refusal"
    return error.value


@pytest.mark.row("C-19.4")
def test_token_has_its_claims(slurm: Slurm, slurm_keys: ClusterKeys) -> None:
    before = int(time.time())
    claims = jwt.decode(slurm.token("carol", lifespan=100), slurm_keys.jwt.data, algorithms=["HS256"])

    assert claims["sun"] == "carol"
    assert claims["exp"] - claims["iat"] == 100
    assert abs(claims["iat"] - before) < 60


@pytest.mark.smoke
def test_token_that_we_sign_is_accepted(slurm: Slurm, slurm_keys: ClusterKeys) -> None:
    token = jwt_token(slurm_keys.jwt, "alice", 600)

    assert Rest(slurm.rest_url(), "alice", token).jobs() is not None


@pytest.mark.smoke
@pytest.mark.row("C-21.1")
def test_expired_token_is_refused(slurm: Slurm, slurm_keys: ClusterKeys) -> None:
    refused(slurm, jwt_token(slurm_keys.jwt, "alice", 60, issued_at=time.time() - 3600))


@pytest.mark.row("C-21.2")
def test_token_signed_with_another_key_is_refused(slurm: Slurm) -> None:
    refused(slurm, jwt_token(Key.hs256(), "alice", 600))


@pytest.mark.row("C-21.2")
def test_token_whose_user_was_changed_is_refused(slurm: Slurm) -> None:
    header, _, signature = slurm.token("bob").split(".")
    claims = {"exp": int(time.time()) + 600, "iat": int(time.time()), "sun": "root"}
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    refused(slurm, f"{header}.{forged}.{signature}", user="root")


@pytest.mark.row("C-21.2")
def test_token_without_a_signature_is_refused(slurm: Slurm) -> None:
    now = int(time.time())
    token = jwt.encode({"exp": now + 600, "iat": now, "sun": "alice"}, key=None, algorithm="none")

    refused(slurm, token)


@pytest.mark.row("C-21.3")
def test_token_of_another_user_is_refused(slurm: Slurm) -> None:
    refused(slurm, slurm.token("bob"), user="alice")


@pytest.mark.row("C-21.4")
def test_missing_token_is_401(slurm: Slurm) -> None:
    version = slurm.rest().version

    answer = requests.get(f"{slurm.rest_url()}/slurm/{version}/jobs", timeout=20)

    assert answer.status_code == 401
    assert "jobs" not in answer.text


@pytest.mark.smoke
@pytest.mark.row("C-21.5")
def test_one_user_cannot_cancel_anothers_job(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="true", hold=True, user="alice")

    with pytest.raises(SlurmRestError):
        slurm.rest("bob").cancel(job.id)

    assert job.state == "PENDING", "bob cancelled a job of alice"


def test_ordinary_user_makes_no_token_for_another(slurm: Slurm) -> None:
    done = slurm.run(["scontrol", "token", "username=root"], user="alice", check=False)

    assert done.returncode != 0
    assert "SLURM_JWT" not in done.stdout


@pytest.mark.row("C-17.1", "C-17.2", "C-17.3", "C-17.4")
def test_configuration_and_key_are_as_the_document_has_them(slurm: Slurm) -> None:
    for daemon in ("slurmctld", "slurmdbd"):
        name = "slurm.conf" if daemon == "slurmctld" else "slurmdbd.conf"
        lines = slurm.read(f"/etc/slurm/{name}", host=slurm.host_of(daemon)).splitlines()
        assert "AuthAltTypes=auth/jwt" in lines, name
        assert "AuthAltParameters=jwt_key=/etc/slurm/jwt_hs256.key" in lines, name
    key = slurm.run(["stat", "--format=%U:%G %a %s", "/etc/slurm/jwt_hs256.key"]).stdout.strip()

    assert key == "slurm:slurm 600 32"
