"""What stands in for a network with NetworkPolicies: the rules that it makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.kubernetes.policies import rules


def pod(name: str, address: str, namespace: str = "hpc", **labels: str) -> dict[str, Any]:
    """A running pod with a named port."""
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"ports": [{"name": "ssh", "containerPort": 2222}]}]},
        "status": {"podIP": address, "phase": "Running"},
    }


def policy(selects: dict[str, str], *ingress: dict[str, Any]) -> dict[str, Any]:
    """A policy of the namespace hpc."""
    spec = {"podSelector": {"matchLabels": selects}, "policyTypes": ["Ingress"], "ingress": list(ingress)}
    return {"metadata": {"namespace": "hpc"}, "spec": spec}


SPACES = [{"metadata": {"name": name, "labels": {"team": name}}} for name in ("hpc", "web")]
LOGIN = pod("login", "10.0.0.1", cluster="a")
NODE = pod("node", "10.0.0.2", cluster="a")
OTHER = pod("other", "10.0.0.3", "web", cluster="a")
PODS = [LOGIN, NODE, OTHER]


def made(*policies: dict[str, Any]) -> list[str]:
    """The rules, without the first, which every set has."""
    return rules(policies, PODS, SPACES)[1:]


def test_pod_that_no_policy_selects_is_open() -> None:
    assert made(policy({"cluster": "b"})) == []


def test_pods_of_a_label_reach_one_another_and_others_do_not() -> None:
    within = {"from": [{"podSelector": {"matchLabels": {"cluster": "a"}}}]}

    assert made(policy({"cluster": "a"}, within)) == [
        "-d 10.0.0.1 -s 10.0.0.1 -j RETURN",
        "-d 10.0.0.1 -s 10.0.0.2 -j RETURN",
        "-d 10.0.0.1 -j DROP",
        "-d 10.0.0.2 -s 10.0.0.1 -j RETURN",
        "-d 10.0.0.2 -s 10.0.0.2 -j RETURN",
        "-d 10.0.0.2 -j DROP",
    ]


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ({"ipBlock": {"cidr": "192.0.2.0/24"}}, "192.0.2.0/24"),
        ({"namespaceSelector": {"matchLabels": {"team": "web"}}}, "10.0.0.3"),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"cluster": "a"}}}, "10.0.0.3"),
    ],
)
def test_peers_are_addresses_or_pods_of_namespaces(peer: dict[str, Any], source: str) -> None:
    assert f"-d 10.0.0.1 -s {source} -j RETURN" in made(policy({"cluster": "a"}, {"from": [peer]}))


def test_named_port_is_the_pods_and_one_that_it_lacks_is_none() -> None:
    ports = [{"port": name, "protocol": "TCP"} for name in ("ssh", "slurmrestd", 8888)]

    assert made(policy({"cluster": "a"}, {"ports": ports}))[:3] == [
        "-d 10.0.0.1 -p tcp --dport 2222 -j RETURN",
        "-d 10.0.0.1 -p tcp --dport 8888 -j RETURN",
        "-d 10.0.0.1 -j DROP",
    ]


def test_egress_that_it_does_not_know_is_no_open_door() -> None:
    egress = policy({"cluster": "a"})
    egress["spec"]["policyTypes"] = ["Ingress", "Egress"]

    with pytest.raises(ValueError, match="'Egress'] are not understood here"):
        made(egress)


@pytest.mark.parametrize(
    ("ingress", "unknown"),
    [
        ({"from": [{"podSelector": {"matchExpressions": []}}]}, "matchExpressions"),
        ({"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.7/32"]}}]}, "except"),
        ({"ports": [{"port": 1, "endPort": 9, "protocol": "TCP"}]}, "endPort"),
    ],
)
def test_part_that_it_does_not_know_is_no_open_door(ingress: dict[str, Any], unknown: str) -> None:
    with pytest.raises(ValueError, match=f"{unknown} of a policy is not understood here"):
        made(policy({"cluster": "a"}, ingress))
