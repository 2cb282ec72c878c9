"""What every spawner's jobs have: their logs on the shared tree, JupyterLab, a hub that asks often at first."""

import os
from pathlib import Path

c = get_config()  # noqa: F821  # traitlets' own, in configuration files

_logs = Path("/shared/jupyterhub-logs")
_output = f" --output={_logs}/{{username}}-%j.out --error={_logs}/{{username}}-%j.err" if _logs.is_dir() else ""
c.SlurmSpawner.batch_submit_cmd = f"sbatch --parsable --chdir={{homedir}}{_output}"
c.Spawner.default_url = "/lab"
# A hub without slurm.conf (configless): sbatch runs with the server's variables alone.
if "SLURM_CONF_SERVER" in os.environ:
    c.Spawner.environment = {"SLURM_CONF_SERVER": os.environ["SLURM_CONF_SERVER"]}
# A job starts within a second: ask twice in the time of batchspawner's default.
c.BatchSpawnerBase.startup_poll_interval = 0.25
