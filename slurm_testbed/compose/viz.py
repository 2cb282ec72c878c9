"""Application sessions of a cluster that has them: its nodes, and the applications on them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from slurm_testbed.compose.ssh import ssh_config
from slurm_testbed.deploy import Deployed, deploy
from slurm_testbed.errors import UsageError
from slurm_testbed.images import sif_path
from slurm_testbed.slurm import Slurm

#: The partition of the nodes that run applications.
PARTITION = "viz"


class Viz:
    """The nodes of compose/viz.yaml that run applications.

    Args:
        slurm: a cluster with the partition `viz`.

    Raises:
        UsageError: the cluster has no such partition.

    Example:
        >>> with SlurmCluster(stack="viz") as slurm:  # doctest: +SKIP
        ...     slurm.viz.deploy("gedit")
        [Deployed(node='n1', path='/opt/apptainers/apps/gedit/gedit.sif', copied=True), ...]
    """

    def __init__(self, slurm: Slurm) -> None:
        self._slurm = slurm
        self.nodes = [
            name for name, node in slurm.nodes().items() if PARTITION in node.get("Partitions", "").split(",")
        ]
        if not self.nodes:
            raise UsageError(
                f"this cluster has no partition {PARTITION}",
                hint='take one with it: SlurmCluster(stack="viz"), invoke up.viz',
            )

    def deploy(self, app: str, image: Path | None = None, *, nodes: Sequence[str] = ()) -> list[Deployed]:
        """Bring an application's image to nodes, over SSH as root.

        Args:
            app: the application's name.
            image: an image for Apptainer; by default viz-app's, as `invoke build --image viz-app --sif` made it.
            nodes: which; all of the partition if not given.

        Raises:
            UsageError: the file is no image.
            DeployError: it did not come to some of the nodes.
        """
        with tempfile.TemporaryDirectory(prefix="slurm-testbed-ssh-") as folder:
            ssh = ["ssh", "-F", str(ssh_config(self._slurm, "root", Path(folder)))]
            return deploy(image or sif_path(), app, list(nodes) or self.nodes, ssh=ssh)
