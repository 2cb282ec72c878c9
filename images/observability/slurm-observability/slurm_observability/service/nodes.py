"""Which row is a node's: agents and slurmctld tell of the same nodes, and either may not say of which cluster."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from slurm_observability.service.models import Node

#: Cluster and name.
Place = tuple[str, str]
#: What Slurm says of a node that it does not have, or no more.
NO_FACTS = {
    "state": "",
    "reason": "",
    "cpus": None,
    "cpus_allocated": None,
    "memory_mb": None,
    "memory_allocated_mb": None,
    "gres": "",
}


def place_of(cluster: str, name: str, known: Collection[Place]) -> Place | None:
    """The place, among those that are known, of a node: its own, or the only one of its name where a cluster is open.

    slurmctld leaves the cluster of its own nodes empty, an agent until slurm.conf is there.

    Example:
        >>> place_of("", "n1", [("testbed", "n1")]), place_of("testbed", "n1", [("", "n1")])
        (('testbed', 'n1'), ('', 'n1'))
        >>> place_of("other", "n1", [("testbed", "n1")]), place_of("", "n1", [("a", "n1"), ("b", "n1")])
        (None, None)
        >>> place_of("", "n1", [("", "n1"), ("testbed", "n1")])
        ('testbed', 'n1')
    """
    if cluster and (cluster, name) in known:
        return cluster, name
    named = [place for place in known if place[1] == name and place[0]]
    if not cluster and len(named) == 1:
        return named[0]
    return ("", name) if ("", name) in known else None


def node_row(session: Session, cluster: str, name: str) -> Node:
    """The row of a node, made where there is none; it knows its cluster from then on."""
    rows = session.scalars(sa.select(Node).where(Node.node == name).with_for_update())
    known = {(row.cluster, row.node): row for row in rows}
    place = place_of(cluster, name, known)
    if place is None:
        row = Node(cluster=cluster, node=name, **NO_FACTS)
        session.add(row)
        return row
    row = known[place]
    row.cluster = row.cluster or cluster
    # Two that told of a new node at the same moment made a row each.
    if place[0] and len(known) == 2 and (double := known.get(("", name))):
        session.delete(double)
    return row
