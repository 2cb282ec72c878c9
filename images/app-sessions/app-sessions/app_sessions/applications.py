"""The applications: what can be started, how its job asks Slurm for it, and by whom."""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from app_sessions.errors import AppSessionsError

#: Where the seed has an application's image, on the nodes.
IMAGES = "/opt/apptainers/apps"
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_UNITS = {"": 1, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
#: What the service itself tells a job.
OUR_VARIABLES = frozenset({"SESSION_ID", "VNC_PORT", "APP_ID", "APP_IMAGE", "GEOMETRY", "APP_SESSION_PASSWORD"})

Words = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class ApplicationsError(AppSessionsError):
    """The file of applications cannot be used; the text says where it is wrong."""


class Application(BaseModel):
    """An application; the defaults of what its job asks for are the seed's.

    Attributes:
        id: its name in the API, and what the node's image starts.
        image: the Apptainer image on the nodes; /opt/apptainers/apps/ID/ID.sif unless given.
        geometry: of its display, WIDTHxHEIGHT in pixels.
        job_script: the batch script, on the service's host.
        partition, nodes, cpus_per_task, memory, time: as sbatch's options of these names.
        users, groups: who may start it; everybody where neither is given.
        environment: further variables of the job.

    Example:
        >>> Application(id="gedit", title="Text editor").image_path
        '/opt/apptainers/apps/gedit/gedit.sif'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    title: Words
    description: Words = ""
    image: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9_./-]+$", max_length=1024)] | None = None
    geometry: Annotated[str, StringConstraints(pattern=r"^[1-9]\d{2,3}x[1-9]\d{2,3}$")] = "1280x800"
    job_script: Path = Path("/usr/share/app-sessions/slurm_jobs/vnc_job.sh")
    partition: Name = "viz"
    nodes: Annotated[int, Field(ge=1, le=1, description="a display is on one node")] = 1
    cpus_per_task: Annotated[int, Field(ge=1, le=1024)] = 2
    memory: Annotated[str, StringConstraints(pattern=r"^\d+[KMGT]?$")] = "4G"
    time: str = "02:00:00"
    users: frozenset[Name] = frozenset()
    groups: frozenset[Name] = frozenset()
    environment: Mapping[Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")], Words] = {}

    @field_validator("time")
    @classmethod
    def _is_time(cls, text: str) -> str:
        minutes(text)
        return text

    @field_validator("environment")
    @classmethod
    def _is_not_ours(cls, given: Mapping[str, str]) -> Mapping[str, str]:
        if taken := sorted(OUR_VARIABLES & given.keys()):
            raise ValueError(f"{', '.join(taken)} is set by the service")
        return given

    @property
    def image_path(self) -> str:
        """Where its image is on the nodes."""
        return self.image or f"{IMAGES}/{self.id}/{self.id}.sif"

    @property
    def memory_mib(self) -> int:
        """The memory that its job asks for, as Slurm counts megabytes."""
        unit = self.memory.lstrip("0123456789")
        return max(1, int(int(self.memory.removesuffix(unit)) * _UNITS[unit]))

    @property
    def minutes(self) -> int:
        """The time limit of its job."""
        return minutes(self.time)

    def may(self, user: str) -> bool:
        """Whether a user may start it."""
        if not self.users and not self.groups:
            return True
        return user in self.users or bool(self.groups & _groups_of(user))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    applications: list[Application]

    @field_validator("applications")
    @classmethod
    def _are_different(cls, found: list[Application]) -> list[Application]:
        ids = [one.id for one in found]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice")
        return found


class Applications:
    """The applications of a file, in its order.

    Args:
        known: the applications.

    Example:
        >>> Applications([Application(id="gedit", title="Text editor")]).get("gedit").title
        'Text editor'
    """

    def __init__(self, known: list[Application]) -> None:
        self._known = {one.id: one for one in known}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of applications.

        Raises:
            ApplicationsError: it is not there, or wrong; names the application and what is wrong about it.
        """
        try:
            found = yaml.safe_load(path.read_text())
        except OSError as error:
            raise ApplicationsError(f"{path} cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ApplicationsError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
        try:
            made = cls(_File.model_validate(found).applications)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ApplicationsError(f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
        for one in made.all():
            try:
                one.job_script.open("rb").close()
            except OSError as error:
                raise ApplicationsError(f"{path}: {one.id}: {one.job_script}: {error.strerror}") from error
        return made

    def all(self) -> list[Application]:
        """Every application."""
        return list(self._known.values())

    def get(self, app_id: str) -> Application | None:
        """The application of an id; None where there is none."""
        return self._known.get(app_id)

    def of(self, user: str) -> list[Application]:
        """Those that a user may start."""
        return [one for one in self._known.values() if one.may(user)]


def minutes(text: str) -> int:
    """A time limit as sbatch takes it, in minutes: https://slurm.schedmd.com/sbatch.html#OPT_time.

    Raises:
        ValueError: it is none, or of no length.

    Example:
        >>> minutes("02:00:00"), minutes("90"), minutes("1-12"), minutes("30:00")
        (120, 90, 2160, 30)
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text} is no time: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS or DAYS-HOURS")
    days, *parts = match.groups()
    first, second, third = (int(part or 0) for part in parts)
    if days is not None:
        seconds = int(days) * 86400 + first * 3600 + second * 60 + third
    elif parts[2] is not None:
        seconds = first * 3600 + second * 60 + third
    else:
        seconds = first * 60 + second
    if seconds < 60:
        raise ValueError(f"{text} is less than a minute, which is Slurm's least")
    return -(-seconds // 60)


def _groups_of(user: str) -> set[str]:
    try:
        ids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return set()
    found = set()
    for gid in ids:
        try:
            found.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return found
