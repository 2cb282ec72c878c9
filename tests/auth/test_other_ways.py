"""Other ways to authenticate: an identity provider's tokens, auth/slurm in munge's place, configless clients."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from slurm_testbed import SlurmContainer
from slurm_testbed.container import SlurmClient
from slurm_testbed.errors import SlurmRestError
from slurm_testbed.releases import Release
from slurm_testbed.rest import Rest

FOLDER = "/etc/slurm/slurm.conf.d"
#: https://slurm.schedmd.com/jwt.html: keys of others beside the cluster's own.
JWKS_CONF = f"AuthAltParameters=jwks={FOLDER}/jwks.json,jwt_key=/etc/slurm/jwt_hs256.key\n"
#: https://slurm.schedmd.com/authentication.html#slurm
AUTH_SLURM = "s#^AuthType=.*#AuthType=auth/slurm#; s#^CredType=.*#CredType=auth/slurm#"


def signed(private: rsa.RSAPrivateKey, user: str) -> str:
    """A token of an identity provider."""
    now = int(time.time())
    claims = {"iat": now, "exp": now + 600, "sun": user}
    return jwt.encode(claims, private, algorithm="RS256", headers={"kid": "provider"})


@pytest.mark.requires("containers")
@pytest.mark.requires("jwks")
@pytest.mark.row("C-22.1", "C-22.2")
def test_token_of_an_identity_provider_is_accepted_beside_our_own(slurm_start: Callable[..., Any]) -> None:
    private, other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    public = {
        **RSAAlgorithm.to_jwk(private.public_key(), as_dict=True),
        "kid": "provider",
        "alg": "RS256",
        "use": "sig",
    }
    conf = {"80-jwks.conf": JWKS_CONF, "jwks.json": json.dumps({"keys": [public]})}

    with slurm_start(conf=conf) as slurm:
        job_id = Rest(slurm.rest_url(), "alice", signed(private, "alice")).submit(
            "#!/bin/sh\nid -un", partition="debug"
        )
        assert slurm.job(job_id).wait().state == "COMPLETED"
        assert slurm.job(job_id).record().fields["UserId"] == "alice(1000)"
        assert slurm.rest(user="bob").submit("#!/bin/sh\ntrue", partition="debug") > job_id
        with pytest.raises(SlurmRestError):
            Rest(slurm.rest_url(), "alice", signed(other, "alice")).jobs()


@pytest.mark.requires("auth_slurm")
@pytest.mark.row("C-22.3")
def test_auth_slurm_takes_munges_place(slurm_release: Release) -> None:
    with SlurmContainer(slurm_release.version, accounting=False) as slurm:
        host, substrate = slurm.controller, slurm.substrate
        for daemon in ("slurmrestd", "slurmd", "slurmctld"):
            substrate.service(host, daemon, "stop")
        substrate.put(host, {"/etc/slurm/slurm.key": os.urandom(1024)}, mode=0o600, owner="slurm:slurm")
        slurm.run(["sed", "-i", AUTH_SLURM, "/etc/slurm/slurm.conf"])
        for daemon in ("slurmctld", "slurmd"):
            substrate.service(host, daemon, "start")
        # The supervisor's scripts want it; Slurm does not any more.
        substrate.service(host, "munged", "stop")

        assert slurm.run(["munge", "--no-input"], check=False).returncode != 0, "munge still answers"
        slurm.wait_until(lambda: slurm.nodes()["n1"]["State"] == "IDLE", "the node to be idle")
        job = slurm.sbatch(wrap="srun id -un", user="bob")
        assert job.wait().state == "COMPLETED"
        assert job.output() == "bob\n"
        assert "AuthType                = auth/slurm" in slurm.run(["scontrol", "show", "config"]).stdout


@pytest.mark.requires("sackd")
@pytest.mark.row("C-22.4")
def test_client_without_configuration_has_it_by_sackd(slurm_release: Release) -> None:
    with SlurmContainer(slurm_release.version) as slurm, SlurmClient(slurm) as client:
        client.run(["rm", "/etc/slurm/slurm.conf"])
        assert client.run(["sinfo"], check=False).returncode != 0, "a client with nothing needs no sackd"

        client.run(["mkdir", "-p", "/run/slurm"])
        client.run(["sackd", "--conf-server", f"{slurm.name}:6817"])

        def told() -> bool:
            return client.run(["test", "-e", "/run/slurm/conf/slurm.conf"], check=False).returncode == 0

        slurm.wait_until(told, "sackd to have the configuration")
        assert client.run(["srun", "id", "--name", "--user"], user="alice").stdout == "alice\n"
