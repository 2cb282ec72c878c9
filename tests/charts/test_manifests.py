"""What the charts make is what Kubernetes takes, and no more than the images need."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fixtures.charts import CHARTS, KUBERNETES, Chart, find, pods, problem
from slurm_testbed import data
from slurm_testbed.kubernetes import HELM, tools
from slurm_testbed.releases import Releases

#: What no container may have: more of the machine than its own.
FORBIDDEN = {"hostNetwork", "hostPID", "hostIPC", "privileged", "shareProcessNamespace"}
CASES = [(name, case.name) for name in CHARTS for case in Chart(name, Path()).cases()]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].removesuffix('.yaml')}")
def case(request: pytest.FixtureRequest) -> tuple[Chart, Path]:
    """Each chart with each set of values, rendered by the newest Helm."""
    name, values = request.param
    chart = Chart(name, tools(HELM[-1]).helm)
    return chart, chart.folder / "ci" / values


def test_lint_has_nothing_against_a_chart(chart: Chart) -> None:
    for values in chart.cases():
        assert chart.lint(f"--values={values}") == "", values.name


def test_lint_finds_a_mistake(chart: Chart) -> None:
    assert "additional" in chart.lint("--set=nodse.replicas=3").lower()


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_what_is_rendered(case: tuple[Chart, Path], version: str) -> None:
    chart, values = case

    assert list(chart.refused(values, version)) == []


def test_field_that_kubernetes_does_not_know_is_refused(cluster_chart: Chart) -> None:
    claim = find(cluster_chart.template(), "PersistentVolumeClaim")

    claim["spec"]["storageclass"] = "fast"

    assert "storageclass" in problem(claim, KUBERNETES[-1])


def test_both_helms_render_the_same(case: tuple[Chart, Path]) -> None:
    chart, values = case
    rendered = [Chart(chart.name, tools(major).helm).template(f"--values={values}") for major in HELM]

    # Keys are made anew for each.
    without_keys = [[each for each in one if each["kind"] != "Secret"] for one in rendered]
    assert without_keys[0] == without_keys[1]
    assert [each["metadata"] for each in rendered[0]] == [each["metadata"] for each in rendered[1]]


def test_container_has_named_capabilities_probes_and_resources(case: tuple[Chart, Path]) -> None:
    chart, values = case

    for name, pod in pods(chart.template(f"--values={values}")).items():
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not FORBIDDEN & pod.keys(), name
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            where = f"{name}/{container['name']}"
            security = container["securityContext"]
            assert security["capabilities"]["drop"] == ["ALL"], where
            assert "ALL" not in security["capabilities"]["add"], where
            # Kubernetes refuses the one with the other.
            assert security["allowPrivilegeEscalation"] == ("SYS_ADMIN" in security["capabilities"]["add"]), where
            assert not FORBIDDEN & security.keys(), where
            assert container["resources"]["requests"], where
            assert container["resources"]["limits"], where
        for container in pod["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["exec"]["command"][0] == "slurm-ready", f"{name}/{container['name']} {probe}"
            for port in container.get("ports", []):
                assert port["protocol"] == "TCP", "helm 4 does not merge ports without it on older releases"


def test_pod_has_no_token_of_kubernetes_unless_it_makes_pods(case: tuple[Chart, Path]) -> None:
    chart, values = case
    manifests = chart.template(f"--values={values}")
    makes_pods = any(each["kind"] == "Role" for each in manifests)

    assert all(("serviceAccountName" in pod) == makes_pods for pod in pods(manifests).values())
    assert all((pod.get("automountServiceAccountToken", True)) == makes_pods for pod in pods(manifests).values())


def test_cgroups_take_their_capabilities_and_no_apparmor(cluster_chart: Chart) -> None:
    old, new = (
        find(cluster_chart.template("--set=nodes.cgroups=true", f"--kube-version={version}"), "StatefulSet", "-node")
        for version in ("1.29.0", "1.30.0")
    )

    template = new["spec"]["template"]
    security = template["spec"]["containers"][0]["securityContext"]
    assert security["capabilities"]["add"][-3:] == ["SYS_ADMIN", "SYS_NICE", "SYS_PTRACE"]
    assert security["appArmorProfile"] == {"type": "Unconfined"}
    assert "container.apparmor.security.beta.kubernetes.io/slurmd" in old["spec"]["template"]["metadata"]["annotations"]


@pytest.mark.parametrize("name", CHARTS)
def test_chart_is_of_the_default_release(name: str) -> None:
    text = (data.charts() / name / "Chart.yaml").read_text()

    assert f'appVersion: "{Releases.load().default()[0].version}"' in text


@pytest.mark.parametrize("name", CHARTS)
def test_variables_are_settings_of_the_images(name: str) -> None:
    templates = (data.charts() / name / "templates").glob("*")
    given = {found for path in templates for found in re.findall(r"\{name: ((?:SLURM|JUPYTER)\w+),", path.read_text())}
    known = subprocess.run(
        ["git", "grep", "--only-matching", "-h", "-E", "(SLURM|JUPYTER)[A-Z_]+", "--", "images"],
        cwd=data.images().parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert given
    assert given <= set(known)
