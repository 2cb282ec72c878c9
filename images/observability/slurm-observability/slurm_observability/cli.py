"""The command slurm-observability: each half brings its subcommands, and is imported only when one of them runs."""

from __future__ import annotations

import importlib

import click

from slurm_observability import __version__

#: What to install for a half, whose module `commands` has its subcommands under their own names.
HALVES = {"node": "slurm-observability", "service": "slurm-observability[service]"}
#: A subcommand, its half, and what it is for.
SUBCOMMANDS = {
    "agent": ("node", "Read the jobs of this node, and deliver their events."),
    "check": ("node", "Say what of Slurm's configuration does not fit."),
    "service": ("service", "Run the service."),
    "token": ("service", "Make, list and revoke the tokens of the service."),
}


class _Halves(click.Group):
    """Finds a subcommand in its half; a node need not have what the service imports."""

    def list_commands(self, _: click.Context) -> list[str]:
        return sorted(SUBCOMMANDS)

    def get_command(self, _context: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        half, _ = SUBCOMMANDS[cmd_name]
        try:
            module = importlib.import_module(f"slurm_observability.{half}.commands")
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("slurm_observability"):
                raise
            needs = f"{cmd_name} needs the Python package {error.name}: pip install '{HALVES[half]}'"
            raise click.ClickException(needs) from error
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them: a node's help shows the service's, too."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUBCOMMANDS[name][1]) for name in sorted(SUBCOMMANDS)])


@click.group(cls=_Halves)
@click.version_option(__version__)
def main() -> None:
    """Observe Slurm's jobs: the service, and the agent of a node."""
