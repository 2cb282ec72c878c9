"""The display of a session: Xvnc, on the first display whose X and RFB ports are free on this host."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from viz_app.children import Children, first_line
from viz_app.problem import NO_DISPLAY, Problem

#: Of display 0; display N has the port N further: RFC 6143, 7.
RFB_PORT = 5900
#: The highest display that is tried.
_HIGHEST = 199
#: Seconds that an X server may take on a busy machine.
_PATIENCE = 30.0
#: What Xvnc says where another one has the display or its port.
_TAKEN = re.compile(r"already active for display|Address already in use|any listening sockets|server lock|lock file")


@dataclass(frozen=True)
class Display:
    """A display that is ready.

    Attributes:
        number: of the X display, 1 for `:1`.
        authority: the file with its cookie: who cannot read it cannot use the display.
    """

    number: int
    authority: Path

    @property
    def name(self) -> str:
        """What X clients call it."""
        return f":{self.number}"

    @property
    def rfb_port(self) -> int:
        """Where it speaks RFB, to this host alone."""
        return RFB_PORT + self.number


def start(
    children: Children,
    folder: Path,
    *,
    geometry: tuple[int, int],
    password_file: Path,
    title: str,
    environment: Mapping[str, str],
) -> Display:
    """Start Xvnc on the next free display, from :1 on.

    Others on this host may ask for the same display at the same time, as sessions of Apptainer do, which share its
    network and /tmp. So we try, and go on where it is taken: binding a port is the one question without a race.

    Args:
        children: the session's processes.
        folder: the session's own.
        geometry: width and height in pixels.
        password_file: the password as Xvnc wants it.
        title: what viewers show.
        environment: all its variables.

    Raises:
        Problem: there is no free display, or Xvnc fails for another reason, which its log says.
    """
    for number in range(1, _HIGHEST + 1):
        display = Display(number, folder / "Xauthority")
        _allow(display)
        ours, theirs = os.pipe()
        command = [
            "Xvnc",
            display.name,
            *("-displayfd", str(theirs)),  # it writes there when it is ready
            *("-rfbport", str(display.rfb_port), "-localhost"),
            *("-SecurityTypes", "VncAuth", "-PasswordFile", str(password_file)),
            *("-auth", str(display.authority), "-nolisten", "tcp"),
            *("-geometry", f"{geometry[0]}x{geometry[1]}", "-depth", "24"),
            *("-desktop", title, "-AlwaysShared", "-noreset"),
        ]
        server = children.start("Xvnc", command, environment, pass_fds=[theirs])
        os.close(theirs)
        if first_line(ours, _PATIENCE) is not None:
            return display
        server.kill()
        server.wait()
        said = children.log("Xvnc").read_text(errors="replace")
        if not _TAKEN.search(said):
            break
    raise Problem(f"there is no display: Xvnc said: {_reason(said)}", NO_DISPLAY)


def _allow(display: Display) -> None:
    """Make a cookie for the display, in a file; without one every user of the host could look at it and type."""
    line = f"add {display.name} . {secrets.token_hex(16)}\n"
    # By standard input, for arguments can be seen by others.
    done = subprocess.run(
        ["xauth", "-q", "-f", str(display.authority), "source", "-"],
        input=line,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(f"there is no cookie for display {display.name}: {done.stderr.strip()}", NO_DISPLAY)


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip() and set(line.strip()) != {"(", "E", ")"}]
    errors = [line for line in lines if "rror" in line or "annot" in line or "ailed" in line]
    return "; ".join((errors or lines)[-3:]) or "nothing"
