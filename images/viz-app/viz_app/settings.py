"""What the environment says about a session."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from viz_app.problem import USAGE, Problem


@dataclass(frozen=True)
class Settings:
    """The settings of one session.

    Attributes:
        app: the application's name: APP.
        port: where websockify listens: VNC_PORT.
        geometry: width and height of the picture in pixels: GEOMETRY, `1280x800`.
        password_file: who may read it owns the session: VNC_PASSWORD_FILE; None to have a password made.
        ready_file: written once the session can be reached: VNC_READY_FILE; None for nobody who waits.
    """

    app: str = "gedit"
    port: int = 6080
    geometry: tuple[int, int] = (1280, 800)
    password_file: Path | None = None
    ready_file: Path | None = None

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; one that is empty counts as not given.

        Args:
            environment: variables.

        Raises:
            Problem: one cannot be meant.

        Example:
            >>> Settings.load({"VNC_PORT": "6081", "APP": ""}).port
            6081
        """
        given = {name: value for name, value in environment.items() if value}
        port, geometry = given.get("VNC_PORT", "6080"), given.get("GEOMETRY", "1280x800")
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise Problem(f"VNC_PORT={port} is no port: give one from 1 to 65535", USAGE)
        size = re.fullmatch(r"([0-9]{3,4})x([0-9]{3,4})", geometry)
        if not size or min(int(size[1]), int(size[2])) < 200:
            raise Problem(f"GEOMETRY={geometry} is no size: give WIDTHxHEIGHT in pixels, 200x200 to 9999x9999", USAGE)
        files = {name: Path(given[name]) if name in given else None for name in ("VNC_PASSWORD_FILE", "VNC_READY_FILE")}
        return cls(
            given.get("APP", "gedit"),
            int(port),
            (int(size[1]), int(size[2])),
            files["VNC_PASSWORD_FILE"],
            files["VNC_READY_FILE"],
        )
