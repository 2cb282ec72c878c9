"""Resource profiles: what a user may choose depends on the user's groups in the hub."""

from tornado import web

c = get_config()  # noqa: F821  # traitlets' own, in configuration files

c.JupyterHub.spawner_class = "jupyterhub_slurmspawner.SlurmSpawner"

# Who is what kind of user; an authenticator that manages groups does it too.
c.JupyterHub.load_groups = {
    "students": {"users": ["carol", "dave"]},
    "researchers": {"users": ["alice", "bob"]},
}

# For each group its profiles; the first is the default. The values are those of the batch script below.
PROFILES = {
    "students": {
        "course": {"title": "Course: 1 core, 1 GB, 1 hour", "nprocs": "1", "memory": "1G", "runtime": "01:00:00"},
    },
    "researchers": {
        "small": {"title": "Small: 1 core, 2 GB, 8 hours", "nprocs": "1", "memory": "2G", "runtime": "08:00:00"},
        "large": {"title": "Large: 2 cores, 4 GB, 2 hours", "nprocs": "2", "memory": "4G", "runtime": "02:00:00"},
    },
}

c.SlurmSpawner.req_partition = "debug"
c.SlurmSpawner.batch_script = """#!/bin/bash
#SBATCH --job-name=jupyterhub-{username}
#SBATCH --partition={partition}
#SBATCH --nodes=1
#SBATCH --cpus-per-task={nprocs}
#SBATCH --mem={memory}
#SBATCH --time={runtime}

{cmd}
"""


def _profiles(spawner):
    """The profiles of all of the user's groups."""
    groups = {group.name for group in spawner.user.groups}
    return {name: profile for group in PROFILES if group in groups for name, profile in PROFILES[group].items()}


def _form(spawner):
    """The spawn page's list; nothing to choose is no page."""
    offered = _profiles(spawner)
    lines = "".join(f'<option value="{name}">{profile["title"]}</option>' for name, profile in offered.items())
    return f'<select name="profile" class="form-control">{lines}</select>' if len(offered) > 1 else ""


def _from_form(formdata):
    return {"profile": formdata["profile"][0]} if "profile" in formdata else {}


def _apply(spawner, options):
    """Set what the profile says, whether the page or the REST API asks; any other option would change the script."""
    offered = _profiles(spawner)
    if not offered:
        raise web.HTTPError(403, f"{spawner.user.name} is in none of the groups {', '.join(PROFILES)}")
    chosen = options.get("profile", next(iter(offered)))
    if chosen not in offered:
        raise web.HTTPError(400, f"there is no profile {chosen} for you; there are {', '.join(offered)}")
    spawner.user_options = {"profile": chosen}
    for name in ("nprocs", "memory", "runtime"):
        setattr(spawner, f"req_{name}", offered[chosen][name])


c.Spawner.options_form = _form
c.Spawner.options_from_form = _from_form
c.Spawner.apply_user_options = _apply
