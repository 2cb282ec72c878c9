"""Who may log in: the users of this host, by PAM; and their folders on the shared tree."""

import os
import pwd
from pathlib import Path

c = get_config()  # noqa: F821  # traitlets' own, in configuration files

c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.service = "jupyterhub"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = set(os.environ.get("JUPYTERHUB_ADMINS", "").split())

_notebooks = Path("/shared/notebooks")


def _make_folder(spawner):
    """Make the folder of a user who was not there when the hub started."""
    folder = _notebooks / spawner.user.name
    if not folder.exists():
        user = pwd.getpwnam(spawner.user.name)
        folder.mkdir(mode=0o700)
        os.chown(folder, user.pw_uid, user.pw_gid)


if _notebooks.is_dir():
    c.Spawner.pre_spawn_hook = _make_folder
    c.Spawner.notebook_dir = f"{_notebooks}/{{username}}"
