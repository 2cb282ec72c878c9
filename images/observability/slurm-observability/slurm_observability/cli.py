"""The command slurm-observability: each half brings its subcommands, and is imported only when one of them runs."""

from __future__ import annotations

import importlib

import click

from slurm_observability import __version__

#: A subcommand; the module of the half that has it under its own name; what it is for.
SUBCOMMANDS = {
    "agent": ("slurm_observability.node.commands", "Read the jobs of this node, and deliver their events."),
    "check": ("slurm_observability.node.commands", "Say what of Slurm's configuration does not fit."),
    "service": ("slurm_observability.service.commands", "Run the service."),
    "token": ("slurm_observability.service.commands", "Make, list and revoke the tokens of the service."),
}


class _Halves(click.Group):
    """Finds a subcommand in its half; a node need not have what the service imports."""

    def list_commands(self, _: click.Context) -> list[str]:
        return sorted(SUBCOMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        try:
            module = importlib.import_module(SUBCOMMANDS[cmd_name][0])
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("slurm_observability"):
                raise
            needs = f"{cmd_name} needs the Python package {error.name}: pip install 'slurm-observability[service]'"
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
