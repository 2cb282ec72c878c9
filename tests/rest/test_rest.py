"""slurmrestd as it runs, over HTTP as curl would speak to it, and through the library's client."""

from __future__ import annotations

import re

import pytest
import requests

from slurm_testbed import SlurmContainer
from slurm_testbed.errors import SlurmRestError
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm


def get(slurm: Slurm, path: str, token: str, user: str = "alice") -> requests.Response:
    headers = {"X-SLURM-USER-NAME": user, "X-SLURM-USER-TOKEN": token}
    return requests.get(f"{slurm.rest_url()}{path}", headers=headers, timeout=20 * slurm.substrate.facts().speed)


@pytest.mark.smoke
@pytest.mark.row("C-20.2")
def test_versions_found_by_asking_are_those_of_the_release(slurm: Slurm, slurm_release: Release) -> None:
    assert tuple(slurm.rest().versions()) == slurm_release.rest


@pytest.mark.smoke
@pytest.mark.vm
@pytest.mark.row("C-19.1", "C-19.2", "C-19.3", "C-18.6")
def test_ping_answers_on_every_api_version(slurm: Slurm, slurm_release: Release) -> None:
    token = slurm.token("alice")

    for version in slurm_release.rest:
        answer = get(slurm, f"/slurm/{version}/ping", token)

        assert answer.status_code == 200, f"{version}: {answer.text}"
        body = answer.json()
        assert not body["errors"]
        if version == "v0.0.35":  # it is alone with neither
            assert body["ping"]["ping"] == "UP"
            continue
        meta = body["meta"].get("slurm") or body["meta"]["Slurm"]
        assert meta["release"] == slurm_release.version, version
        ping = body["pings"][0]
        assert ping["hostname"] == slurm.controller
        # From v0.0.45 on the answer says whether it responds, and whether it is the primary one.
        up = ping["responding"] if "responding" in ping else ping.get("ping", ping.get("pinged")) == "UP"
        primary = ping["primary"] if "primary" in ping else ping["mode"] == "primary"
        assert (up, primary) == (True, True), f"{version}: {ping}"


@pytest.mark.smoke
@pytest.mark.row("C-20.1")
def test_the_documents_version_is_served_by_22_05(slurm: Slurm, slurm_release: Release) -> None:
    answer = get(slurm, "/slurm/v0.0.37/ping", slurm.token("alice"))

    assert (answer.status_code == 200) == ("v0.0.37" in slurm_release.rest), answer.text


@pytest.mark.row("C-20.3")
def test_unknown_version_is_404(slurm: Slurm) -> None:
    assert get(slurm, "/slurm/v0.0.1/ping", slurm.token("alice")).status_code == 404


@pytest.mark.row("C-18.5")
def test_root_is_answered(slurm: Slurm) -> None:
    answer = get(slurm, "/", slurm.token("alice"))

    assert answer.status_code < 500, answer.text


@pytest.mark.row("C-18.1", "C-18.4", "C-06.3")
def test_it_listens_on_all_addresses_as_a_user_of_its_own(slurm: Slurm) -> None:
    host = slurm.host_of("slurmrestd")
    listening = slurm.run(["grep", "-E", ":1AA4 .* 0A ", "/proc/net/tcp"], host=host).stdout.split()
    owners = 'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" != slurmrestd ] || stat -c %U $p; done'
    uids = slurm.run(["sh", "-c", owners], host=host).stdout.split()

    assert listening[1] == "00000000:1AA4", "not on 0.0.0.0:6820"
    assert set(uids) == {"slurmrestd"}, uids


@pytest.mark.row("C-18.2", "C-18.3", "C-18.7", "C-18.8", "C-18.9")
def test_verbose_log_has_the_documents_lines(slurm_release: Release) -> None:
    lines = (
        "JWT authentication plugin loaded",
        r"operations_router: .*GET /slurm/v[0-9.]+/ping",
        r"rest_auth/jwt: .*attempting user_name alice token authentication",
    )
    with SlurmContainer(slurm_release.version, env={"SLURMRESTD_OPTIONS": "-vvvv"}) as slurm:

        def missing() -> list[str]:
            log = slurm.substrate.logs(slurm.controller, "slurmrestd")
            return [line for line in lines if not re.search(line, log)]

        slurm.rest("alice").ping()

        # Two processes write it down, which may be later than the answer.
        slurm.wait_until(lambda: not missing(), "the lines in slurmrestd's log", state=lambda: f"no {missing()}")


@pytest.mark.smoke
def test_job_goes_through_on_every_api_version(slurm: Slurm, slurm_release: Release) -> None:
    for version in slurm_release.rest:
        job = slurm.rest("bob", version=version).submit("#!/bin/bash\nexit 4\n", name=f"by-{version}")

        record = slurm.job(job).wait()
        assert (record.state, record.exit_code) == ("FAILED", 4), version
        assert record.fields["UserId"].startswith("bob("), version
        assert record.fields["JobName"] == f"by-{version}"


@pytest.mark.vm
def test_job_is_listed_and_cancelled(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="true", hold=True)
    rest = slurm.rest("alice")
    assert [entry["job_id"] for entry in rest.jobs() if entry["job_id"] == job.id] == [job.id]

    rest.cancel(job.id)

    assert job.wait().state == "CANCELLED"


def test_slurms_own_text_stands_in_the_error(slurm: Slurm) -> None:
    with pytest.raises(SlurmRestError, match="(?i)invalid partition"):
        slurm.rest().submit("#!/bin/bash\n", partition="nowhere")


def test_accounting_is_served(slurm: Slurm) -> None:
    accounts = slurm.rest("root").get("accounts", db=True)["accounts"]

    assert {"root", "research"} <= {account["name"] for account in accounts}
