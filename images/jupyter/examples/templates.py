"""Job templates: a user chooses a task, and its template has what the job needs."""

from tornado import web

c = get_config()  # noqa: F821  # traitlets' own, in configuration files

c.JupyterHub.spawner_class = "jupyterhub_slurmspawner.SlurmSpawner"

# The first is the default. directives: of the job; prologue: what its script does before the server starts.
TEMPLATES = {
    "explore": {
        "title": "Explore data: 1 core, 2 GB, 4 hours",
        "directives": ["--cpus-per-task=1", "--mem=2G", "--time=04:00:00"],
        "prologue": "",
    },
    "threads": {
        "title": "Compute with threads (NumPy, OpenMP): 2 cores, 2 GB, 2 hours",
        "directives": ["--cpus-per-task=2", "--mem=2G", "--time=02:00:00"],
        "prologue": "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK OPENBLAS_NUM_THREADS=$SLURM_CPUS_PER_TASK",
    },
    "parallel": {
        "title": "Try a parallel program (srun from a terminal): 2 tasks, 2 GB, 1 hour",
        "directives": ["--ntasks=2", "--cpus-per-task=1", "--mem=2G", "--time=01:00:00"],
        "prologue": "",
    },
    "scratch": {
        "title": "Work on many small files: 1 core, 1 GB, a scratch folder on the node, 2 hours",
        "directives": ["--cpus-per-task=1", "--mem=1G", "--time=02:00:00"],
        "prologue": "SCRATCH=$(mktemp -d) && export SCRATCH && trap 'rm -rf \"$SCRATCH\"' EXIT",
    },
}

c.SlurmSpawner.batch_script = """#!/bin/bash
#SBATCH --job-name={{ task }}-{{ username }}
#SBATCH --partition=debug
#SBATCH --nodes=1
{% for directive in directives %}#SBATCH {{ directive }}
{% endfor %}
{{ prologue }}
{{ cmd }}
"""


def _form(_):
    """The spawn page's list."""
    lines = "".join(f'<option value="{name}">{one["title"]}</option>' for name, one in TEMPLATES.items())
    return f'<select name="task" class="form-control">{lines}</select>'


def _from_form(formdata):
    return {"task": formdata["task"][0]} if "task" in formdata else {}


def _apply(spawner, options):
    """Fill in the template, whether the page or the REST API asks; any other option would change the script."""
    chosen = options.get("task", next(iter(TEMPLATES)))
    if chosen not in TEMPLATES:
        raise web.HTTPError(400, f"there is no template for {chosen}; there are {', '.join(TEMPLATES)}")
    spawner.user_options = {
        "task": chosen,
        "directives": TEMPLATES[chosen]["directives"],
        "prologue": TEMPLATES[chosen]["prologue"],
    }


c.Spawner.options_form = _form
c.Spawner.options_from_form = _from_form
c.Spawner.apply_user_options = _apply
