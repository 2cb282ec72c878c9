"""A service that speaks TLS alone, and answers so many requests a minute: its own agents work, others do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from fixtures.observability import ObservedStart, await_state, kinds, prometheus, secret_of
from slurm_testbed import SlurmCluster
from slurm_testbed.pytest_plugin import note_cluster
from slurm_testbed.releases import Release

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep

#: Of one token from one address; the harness asks less often than that.
REQUESTS_PER_MINUTE = 600


@pytest.fixture(scope="module")
def _guarded_cluster(observed_start: ObservedStart) -> Iterator[SlurmCluster]:
    env = {
        "OBSERVABILITY_TLS": "yes",
        "OBSERVABILITY_INTERVAL": "1",
        "OBSERVABILITY_REQUESTS_PER_MINUTE": str(REQUESTS_PER_MINUTE),
    }
    with observed_start(nodes=1, env=env) as cluster:
        yield cluster


@pytest.fixture
def guarded(request: pytest.FixtureRequest, _guarded_cluster: SlurmCluster, slurm_release: Release) -> SlurmCluster:
    note_cluster(request, _guarded_cluster, slurm_release)
    _guarded_cluster.reset()
    return _guarded_cluster


@pytest.mark.row("O-14.2")
def test_agents_prometheus_and_who_has_the_certificate_are_served(guarded: SlurmCluster, tmp_path: Path) -> None:
    job = guarded.sbatch(wrap="true")
    job.wait()
    await_state(guarded, job, "completed")
    assert kinds(guarded, job.id) == [(0, "finished"), (0, "started")]
    # The agent of the node, not slurmctld's alone, and its samples.
    guarded.wait_until(
        lambda: guarded.observability.api("GET", "v1/health").json()["agents"]["seen"] >= 1, "a sample of a node"
    )
    guarded.wait_until(
        lambda: prometheus(guarded, 'up{job="slurm-observability"} == 1'), "Prometheus to read the metrics", deadline=60
    )

    url = guarded.observability.url
    assert url.startswith("https://")
    ca = tmp_path / "ca.crt"
    ca.write_text(guarded.read("/shared/observability/ca.crt", host="n1"))
    assert requests.get(f"{url}/v1/health", verify=str(ca), timeout=30).json()["status"] == "ok"


@pytest.mark.row("O-14.2")
def test_who_has_no_certificate_or_speaks_no_tls_gets_nothing(guarded: SlurmCluster) -> None:
    url = guarded.observability.url
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        requests.get(f"{url}/v1/health", timeout=30)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{url.replace('https', 'http')}/v1/health", timeout=30)
    # Nor does an agent send its token to whom it does not believe.
    done = guarded.substrate.exec(
        "n1",
        ["slurm-observability", "check", "--url=https://observability:8080"],
        env={"OBSERVABILITY_TOKEN_FILE": "/shared/observability/agent.token"},
    )
    assert done.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in done.stdout
    key = guarded.substrate.exec("observability", ["stat", "-c", "%a %U", "/var/lib/slurm-observability/tls.key"])
    assert key.stdout.split() == ["600", "observability"]


@pytest.mark.row("O-11.7")
def test_one_who_asks_too_often_waits_and_others_do_not(guarded: SlurmCluster, tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text(guarded.observability.certificate)
    with secret_of(guarded, "reader", "greedy") as secret, requests.Session() as greedy:
        greedy.headers["Authorization"] = f"Bearer {secret}"
        url = f"{guarded.observability.url}/v1/samples"
        # It may not report, but counts. Twice as many, for a minute may turn in between.
        for _ in range(2 * REQUESTS_PER_MINUTE + 1):
            answer = greedy.post(url, verify=str(ca), timeout=30)
            if answer.status_code != 403:
                break

        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_requests")
        assert 1 <= int(answer.headers["Retry-After"]) <= 61
        job = guarded.sbatch(wrap="true")
        job.wait()
        await_state(guarded, job, "completed")
        assert kinds(guarded, job.id) == [(0, "finished"), (0, "started")]
