"""jupyterhub-moss's spawner and page, with limits that hold whichever way a server is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jupyterhub_moss
import traitlets
from batchspawner import format_template
from jupyterhub_moss.models import PartitionAllResources, PartitionInfo, PartitionsTrait, UserOptions
from pydantic import ValidationError

from jupyterhub_slurmspawner import partitions as slurm_partitions
from jupyterhub_slurmspawner.limits import mebibytes, time_limit, written
from jupyterhub_slurmspawner.refusals import Refused, Unavailable
from jupyterhub_slurmspawner.spawner import SlurmSpawner

# What the page sends where its user changes nothing.
_DURATION = timedelta(hours=1)
# What jupyterhub-moss works out of the rest, and no user gives.
_DERIVED = frozenset({"gres", "prologue"})
# What jupyterhub-moss makes of "Save session logs" where it is not chosen, and what sends logs elsewhere.
_NOT_SAVED = "/dev/null"
_PLACE_OF_LOGS = re.compile(r" --(?:output|error)=\S+")
# Said once for each hub, not for each of its users.
_said: set[str] = set()


class MOSlurmSpawner(jupyterhub_moss.MOSlurmSpawner, SlurmSpawner):  # type: ignore[misc] # it has no types
    """jupyterhub-moss's MOSlurmSpawner upon ours; `c.MOSlurmSpawner` configures it as before.

    Example:
        jupyterhub_moss.set_config(c)
        c.JupyterHub.spawner_class = "jupyterhub_slurmspawner.MOSlurmSpawner"
    """

    slurm_info_cmd = traitlets.Unicode(
        # Without --exact the smallest node stands for all.
        "sinfo --all --exact --noheader --format='%R %F %c %C %G %m %l'",
        help="Asks for the partitions; slurm_info_resources reads the answer.",
    ).tag(config=True)

    user_options: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # moss overwrites both with what a user asks for, also with nothing.
        self._site = (self.default_url, self.notebook_dir)

    # --- partitions --------------------------------------------------------------------------------------

    @traitlets.validate("partitions")
    def _validate_partitions(self, proposal: Any) -> dict[str, dict[str, Any]]:
        try:
            converted, said = slurm_partitions.convert(proposal["value"])
            checked: dict[str, dict[str, Any]] = PartitionsTrait.model_validate(converted).model_dump()
        except ValidationError as error:
            raise traitlets.TraitError(f"c.MOSlurmSpawner.partitions: {_words(error)}") from None
        except ValueError as error:
            raise traitlets.TraitError(f"c.MOSlurmSpawner.partitions: {error}") from None
        for message in said:
            if message not in _said:
                _said.add(message)
                self.log.warning("c.MOSlurmSpawner.partitions: %s", message)
        return checked

    def _slurm_info_resources(self, slurm_info_out: str) -> dict[str, PartitionAllResources]:
        return slurm_partitions.resources(slurm_info_out)

    async def _get_partitions_info(self) -> dict[str, PartitionInfo]:
        """The configured partitions that Slurm has, with what the configuration does not say from Slurm.

        Raises:
            Unavailable: Slurm does not answer, or has none of them.
        """
        values = self.get_req_subvars()
        command = f"{format_template(self.exec_prefix, **values)} {format_template(self.slurm_info_cmd, **values)}"
        try:
            there = self.slurm_info_resources(await self.run_command(command))
        except RuntimeError as error:
            raise Unavailable(f"Slurm does not answer: {error}") from None
        configured = PartitionsTrait.model_validate(self.partitions)
        known = {
            name: PartitionInfo.model_validate({**there[name].model_dump(), **partition.model_dump(exclude_none=True)})
            for name, partition in configured.items()
            if name in there
        }
        if gone := sorted(set(dict(configured.items())) - set(known)):
            self.log.warning("Slurm has no partition %s; Slurm has %s", ", ".join(gone), ", ".join(sorted(there)))
        if not known:
            raise Unavailable(f"Slurm has none of the partitions that this page offers: {', '.join(gone)}")
        return known

    def _submit_command(self) -> str:
        """Without the hub's place for logs where the user has another one, in the script: sbatch's arguments win."""
        command = super()._submit_command()
        saves = (self.user_options or {}).get("output", _NOT_SAVED) != _NOT_SAVED
        return _PLACE_OF_LOGS.sub("", command) if saves else command

    # --- options -----------------------------------------------------------------------------------------

    async def options_from_form(self, formdata: dict[str, list[str]]) -> dict[str, Any]:
        """Check what the page or a link asks for, and keep it as it was asked."""
        options = _read(UserOptions.parse_formdata, formdata)
        asked: dict[str, Any] = options.model_dump(exclude=set(_DERIVED))
        await self._options_for_job(asked)
        return asked

    async def start(self) -> tuple[str, int]:
        """Start what was asked for, within the limits of its partition.

        Raises:
            Refused: it is beyond them.
        """
        self.user_options = (await self._options_for_job(self.user_options or {})).model_dump()
        started: tuple[str, int] = await super().start()
        return started

    async def _options_for_job(self, asked: dict[str, Any]) -> UserOptions:
        """Check options, whoever sends them, and complete them as the page would."""
        given = {name: value for name, value in asked.items() if name not in _DERIVED}
        if "mem" in given:  # jupyterhub-moss's older name, which links still use
            given.setdefault("memory", given.pop("mem"))
        if unknown := sorted(set(given) - set(UserOptions.model_fields)):
            known = ", ".join(sorted(set(UserOptions.model_fields) - _DERIVED))
            raise Refused(f"no option {', '.join(unknown)}; there are {known}")
        partitions = await self._get_partitions_info()
        given.setdefault("partition", _first(partitions))
        options = _read(UserOptions.model_validate, given)
        if options.partition not in partitions:
            raise Refused(f"partition {options.partition} is not available; there are {', '.join(partitions)}")
        info = partitions[options.partition]
        options.runtime = options.runtime or written(min(_DURATION, _longest(info)))
        options.default_url = options.default_url or self._site[0]
        options.root_dir = options.root_dir or self._site[1]
        _check(options, info)
        # Options that an earlier hub kept begin with what moss puts before them.
        options.options = re.sub(r"^(?:--exclusive )+", "", options.options)
        # Private, and of jupyterhub-moss 10: gres, prologue, environment and --exclusive.
        self._MOSlurmSpawner__update_options(options, info)
        return options


def _read(read: Callable[[Any], UserOptions], asked: dict[str, Any]) -> UserOptions:
    """Options as jupyterhub-moss reads them; wrong ones are refused."""
    try:
        return read(asked)
    except ValidationError as error:
        raise Refused(_words(error)) from None
    except OverflowError:  # the one thing that it computes
        raise Refused("runtime: it is too long to be a time limit of Slurm") from None


def _first(partitions: dict[str, PartitionInfo]) -> str:
    """The partition that the page chooses by itself."""
    return next((name for name, info in partitions.items() if info.simple), next(iter(partitions)))


def _longest(info: PartitionInfo) -> timedelta:
    """A partition's limit; no limit is more seconds than a timedelta takes back."""
    unlimited = info.max_runtime >= timedelta.max.total_seconds()
    return timedelta.max if unlimited else timedelta(seconds=info.max_runtime)


def _check(options: UserOptions, info: PartitionInfo) -> None:
    """Refuse what is beyond a partition's limits."""
    beyond = []
    longest = _longest(info)
    asked = time_limit(options.runtime)
    if not asked:
        beyond.append(f"the job's time is {options.runtime}, which Slurm takes for no limit")
    if asked > longest:
        beyond.append(f"the job's time is {options.runtime}, at most {written(longest)}")
    if options.nprocs > info.max_nprocs:
        beyond.append(f"{options.nprocs} cores, at most {info.max_nprocs}")
    if options.ngpus > info.max_ngpus:
        beyond.append(f"{options.ngpus} GPUs, at most {info.max_ngpus}" if info.max_ngpus else "it has no GPUs")
    if options.memory and mebibytes(options.memory) > info.max_mem:
        beyond.append(f"{options.memory} of memory, at most {info.max_mem}M")
    own = options.environment_path or options.environment_modules
    if options.environment_id and not own and options.environment_id not in info.jupyter_environments:
        beyond.append(f"no environment {options.environment_id}, there are {', '.join(info.jupyter_environments)}")
    if beyond:
        raise Refused(f"partition {options.partition}: {'; '.join(beyond)}")


def _words(error: ValidationError) -> str:
    """What pydantic found, in one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in found['loc'])}: {found['msg'].removeprefix('Value error, ')}"
        for found in error.errors()
    )
