"""The commands of a node: agent, and check."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click

from slurm_observability.node.agent import Agent, Settings
from slurm_observability.node.check import examine


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both commands have; each is also a variable of the environment."""
    a_file = click.Path(dir_okay=False, path_type=Path)
    a_folder = click.Path(file_okay=False, path_type=Path)
    for option in reversed(
        [
            click.option(
                "--url",
                envvar=["OBSERVABILITY_URL", "OBSERVABILITY_API_URL"],
                default="http://localhost:8080",
                show_default=True,
                callback=_check_url,
                help="Where the service is.",
            ),
            click.option(
                "--token-file", envvar="OBSERVABILITY_TOKEN_FILE", type=a_file, help="Holds the agent's token."
            ),
            click.option(
                "--ca-file", envvar="OBSERVABILITY_CA_FILE", type=a_file, help="Whose certificates to believe."
            ),
            click.option(
                "--timeout",
                envvar="OBSERVABILITY_TIMEOUT",
                type=click.FloatRange(0.1, 300),
                default=5,
                show_default=True,
                help="Seconds to wait for an answer of the service.",
            ),
            click.option(
                "--interval",
                envvar="OBSERVABILITY_INTERVAL",
                type=click.FloatRange(1, 3600),
                default=10,
                show_default=True,
                help="Seconds between two samples.",
            ),
            click.option(
                "--spool",
                envvar="OBSERVABILITY_SPOOL",
                type=a_folder,
                default="/var/spool/slurm-observability",
                show_default=True,
                help="Where the scripts leave their records.",
            ),
            click.option(
                "--cgroup-root",
                envvar="OBSERVABILITY_CGROUP_ROOT",
                type=a_folder,
                default="/sys/fs/cgroup",
                show_default=True,
                help="Where cgroups are mounted.",
            ),
            click.option(
                "--hold/--no-hold",
                envvar="OBSERVABILITY_HOLD",
                default=True,
                show_default=True,
                help="Keep the folder of a job that has ended until its last values are read.",
            ),
            click.option(
                "--node",
                "host",
                envvar="OBSERVABILITY_NODE",
                default=lambda: socket.gethostname().partition(".")[0],
                help="The node's name, where Slurm does not tell it.  [default: this host's]",
            ),
            click.option(
                "--slurm-conf",
                envvar="SLURM_CONF",
                type=a_file,
                default="/etc/slurm/slurm.conf",
                show_default=True,
                help="Slurm's configuration on this node.",
            ),
        ]
    ):
        command = option(command)
    return command


def _check_url(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} is no address of a service: it begins with https:// or http://")
    return value


@click.command()
@_options
def agent(**settings: Any) -> None:
    """Send what happens to the jobs on this node, and what they use."""
    logging.basicConfig(format="slurm-observability: %(message)s", level=logging.INFO, stream=sys.stderr)
    signal.signal(signal.SIGTERM, _end)
    try:
        Agent(Settings(**settings)).run()
    except OSError as error:
        raise click.ClickException(
            f"the agent cannot work here: {error}. It runs as root, and needs one of fs.inotify.max_user_instances"
        ) from error


@click.command()
@_options
def check(**settings: Any) -> None:
    """Say what on this host does not fit; exit status 1 where something does not."""
    fits = True
    for finding in examine(Settings(**settings)):
        click.echo(f"{'ok     ' if finding.fits else 'problem'}  {finding.text}")
        fits = fits and finding.fits
    if not fits:
        sys.exit(1)


def _end(_signal: int, _frame: FrameType | None) -> None:
    # Nothing is lost at any moment: all that matters is in the spool.
    sys.exit(0)
