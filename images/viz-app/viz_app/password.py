"""The password of a session: from a file, or made here and told to its owner's terminal alone."""

from __future__ import annotations

import secrets
import stat
import string
import subprocess
from pathlib import Path

from viz_app.problem import NO_PASSWORD, Problem

#: VNC authentication takes no more, and ignores what follows: RFC 6143, 7.2.2.
LENGTH = 8
_TERMINAL = Path("/dev/tty")


def password(file: Path | None, *, terminal: Path = _TERMINAL) -> str:
    """The session's password.

    Args:
        file: a file that only its owner may read; None to have a password made.
        terminal: where to tell one that was made.

    Raises:
        Problem: the file cannot be read, others can read it, it holds no password; or there is nobody to tell one to.
    """
    return _read(file) if file else _make(terminal)


def _read(file: Path) -> str:
    try:
        with file.open() as opened:
            mode = stat.S_IMODE(Path(f"/proc/self/fd/{opened.fileno()}").stat().st_mode)
            text = opened.read().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Problem(f"VNC_PASSWORD_FILE={file} cannot be read: {reason}", NO_PASSWORD) from None
    if mode & 0o077:
        raise Problem(f"VNC_PASSWORD_FILE={file} can be read by others (mode {mode:04o}): chmod 400", NO_PASSWORD)
    if not 6 <= len(text) <= LENGTH or not (text.isascii() and text.isprintable()):
        raise Problem(
            f"VNC_PASSWORD_FILE={file} holds no password for VNC: give 6 to {LENGTH} letters, digits or signs",
            NO_PASSWORD,
        )
    return text


def _make(terminal: Path) -> str:
    made = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))
    try:
        with terminal.open("w") as screen:
            screen.write(f"viz-app: the password of this session is {made}\n")
    except OSError:
        raise Problem(
            "there is no VNC_PASSWORD_FILE, and no terminal to tell a password on: give the file, or a terminal",
            NO_PASSWORD,
        ) from None
    return made


def write_for_xvnc(secret: str, file: Path) -> None:
    """Write a password as Xvnc's -PasswordFile wants it, in a folder that is the session's alone.

    Args:
        secret: the password.
        file: where to; it is made for its owner alone.
    """
    # By standard input: arguments and variables can be seen by others.
    made = subprocess.run(["vncpasswd", "-f"], input=secret.encode() + b"\n", stdout=subprocess.PIPE, check=True)
    file.touch(mode=0o600, exist_ok=False)
    file.write_bytes(made.stdout)
