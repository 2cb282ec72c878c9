"""Servers are pods: KubeSpawner with slurm-jupyter-notebook, each a client of the cluster.

The chart's values come by singleuser.json, as KubeSpawner's own settings.
"""

import json
from pathlib import Path

c = get_config()  # noqa: F821  # traitlets' own, in configuration files

c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.update(json.loads(Path("/etc/jupyterhub/singleuser.json").read_text()))
# The folders that the hub makes for its users belong to them, and pods are of alice.
c.KubeSpawner.notebook_dir = ""

_hosts = Path("/shared/slurm-config/hosts")


def _tell_names(spawner):
    """Let a pod know the names of the cluster's hosts, which no name server has, as they are now."""
    known = [path.read_text().split() for path in sorted(_hosts.glob("[!.]*"))]
    names = [{"ip": address, "hostnames": names} for address, *names in known]
    aliases = [*spawner.extra_pod_config.get("hostAliases", []), *names]
    spawner.extra_pod_config = {**spawner.extra_pod_config, "hostAliases": aliases}


c.KubeSpawner.pre_spawn_hook = _tell_names
