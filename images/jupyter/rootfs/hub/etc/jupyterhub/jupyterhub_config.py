"""JupyterHub's configuration, assembled from fragments in the order of their names.

Ours stand in /usr/share/slurm-testbed/jupyterhub_config.d, a site's in /etc/jupyterhub/jupyterhub_config.d, where the
same file name replaces ours. Whoever mounts a file of their own in this one's place has all in their hands.
"""

from pathlib import Path

_folders = ("/usr/share/slurm-testbed/jupyterhub_config.d", "/etc/jupyterhub/jupyterhub_config.d")
_fragments = {path.name: path for folder in _folders for path in Path(folder).glob("*.py")}
for _name in sorted(_fragments):
    load_subconfig(str(_fragments[_name]))  # noqa: F821  # traitlets' own, in configuration files
