"""Applications and desktops are data: a file of TOML for each, which says what to run and what it needs."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from viz_app.problem import NO_APPLICATION, Problem

#: Of an image, and of whoever mounts a file of their own there.
FOLDER = Path("/etc/viz-app")
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")


@dataclass(frozen=True)
class Application:
    """An application, or a desktop, as its file has it.

    Attributes:
        name: the file's name without `.toml`.
        title: what a person calls it.
        command: the program and its arguments.
        packages: Debian's packages that the image has for it.
        environment: variables that it wants.
        opengl: whether it draws by OpenGL, which costs the image Mesa's drivers.
        tells: of a desktop: whether its command opens the FIFO `$DESKTOP_READY` once it manages windows.
    """

    name: str
    title: str
    command: tuple[str, ...]
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    opengl: bool = False
    tells: bool = False

    @classmethod
    def load(cls, path: Path) -> Application:
        """Read a file.

        Args:
            path: `NAME.toml`.

        Raises:
            Problem: it cannot be read, or is not as it should be.

        Example:
            >>> Application.load(FOLDER / "apps" / "gedit.toml").title
            'Text editor'
        """
        try:
            found: dict[str, Any] = tomllib.loads(path.read_text())
            return cls(
                path.stem,
                str(found.pop("title")),
                tuple(_words(found.pop("command"))),
                tuple(_words(found.pop("packages", []))),
                **found,
            )
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise Problem(f"{path} does not describe an application: {error}", NO_APPLICATION) from None

    @property
    def installed(self) -> bool:
        """Whether the image has its program."""
        return shutil.which(self.command[0]) is not None


def _words(found: object) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(word, str) and word for word in found):
        raise TypeError(f"{found!r} is not a list of words")
    return found


def installed(folder: Path = FOLDER) -> list[str]:
    """The names of the applications that can be run here.

    Args:
        folder: where the files are, in `apps`.
    """
    files = sorted(folder.glob("apps/*.toml"))
    return [path.stem for path in files if Application.load(path).installed]


def find(name: str, folder: Path = FOLDER) -> Application:
    """An application by its name.

    Args:
        name: of its file.
        folder: where the files are, in `apps`.

    Raises:
        Problem: there is none of this name, or the image does not have its program; says which there are.
    """
    path = folder / "apps" / f"{name}.toml"
    there = f"there are {', '.join(installed(folder))} (APP)"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise Problem(f"there is no application {name!r}: {there}", NO_APPLICATION)
    application = Application.load(path)
    if not application.installed:
        raise Problem(f"this image has no {application.command[0]} for the application {name}: {there}", NO_APPLICATION)
    return application
