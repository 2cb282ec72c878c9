"""A session from its start to its end: a display, a desktop, the application, and the way to it by WebSocket."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from viz_app import applications, display, password
from viz_app.applications import Application
from viz_app.children import Children, first_line
from viz_app.problem import BROKEN, PORT_TAKEN, USAGE, Problem
from viz_app.settings import Settings

#: noVNC's page, which websockify serves beside the WebSocket.
_PAGE = "/usr/share/novnc"
#: What a session of its own must not take over from where it was started, and secrets that are none of its programs'.
_NOT_INHERITED = (
    "APP_SESSION_PASSWORD",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "PYTHONHOME",  # of a Python elsewhere
    "PYTHONPATH",
    "SESSION_MANAGER",
    "VNC_PASSWORD_FILE",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
)
#: Seconds that a desktop may take to manage windows, and D-Bus to listen, on a busy machine.
_PATIENCE = 30.0


def run(settings: Settings, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a session until its application ends, or until we are told to end by a signal.

    Args:
        settings: of the session.
        arguments: further ones of the application.
        environment: variables.

    Returns:
        The exit status of the application.

    Raises:
        Problem: the session does not start, or a part of it ended that it cannot do without.
    """
    application = applications.find(settings.app)
    desktop = Application.load(applications.FOLDER / "desktop.toml")
    # Before anything is started: a port that is taken is the next one's matter, and soon.
    with _listening(settings.port) as listener, _folder() as folder, Children(folder) as children:
        secret = folder / "passwd"
        password.write_for_xvnc(password.password(settings.password_file), secret)
        ours = _environment(environment, folder)
        screen = display.start(
            children,
            folder,
            geometry=settings.geometry,
            password_file=secret,
            title=application.title,
            environment=ours,
        )
        # -I: neither this folder nor the user's own packages are websockify's.
        proxy = ["python3", "-I", "-m", "websockify", "--inetd", "--web", _PAGE, "--file-only"]
        proxy.append(f"127.0.0.1:{screen.rfb_port}")
        children.start("websockify", proxy, ours, stdin=listener.fileno())
        listener.close()
        ours |= {"DISPLAY": screen.name, "XAUTHORITY": str(screen.authority)}
        _start_bus(children, folder, ours)
        _start_desktop(children, desktop, folder, ours)
        command = [*application.command, *arguments]
        children.start("application", command, ours | dict(application.environment))
        _tell(settings, application, screen)
        return _end(children, application, *children.wait())


def _end(children: Children, application: Application, name: str, status: int) -> int:
    """What the end of one process means for the session."""
    if name == "application":
        return status if status >= 0 else 128 - status
    if name == "desktop" and status == 0:  # its user has logged out
        return 0
    said = children.log(name).read_text(errors="replace").strip().splitlines()[-3:]
    raise Problem(
        f"{name} ended with {status} beneath {application.name}: {'; '.join(said) or 'it said nothing'}", BROKEN
    )


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """A socket that listens on the session's port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", port))  # noqa: S104  # whoever connects has to know the password
            listener.listen(64)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Problem(f"port {port} is taken on this host: give another one as VNC_PORT", PORT_TAKEN) from None
            raise Problem(f"VNC_PORT={port} cannot be listened on: {error.strerror}", USAGE) from None
        yield listener


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """The session's own folder, for its user alone."""
    try:
        made = tempfile.TemporaryDirectory(prefix="viz-app-", ignore_cleanup_errors=True)
    except OSError as error:
        raise Problem(f"there is no folder to write in: {error.strerror}: give a writable /tmp", USAGE) from None
    with made as folder:
        yield Path(folder)


def _environment(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The variables of the session's programs: those that we got, without what belongs to another session."""
    kept = {name: value for name, value in environment.items() if name not in _NOT_INHERITED and name[:3] != "LC_"}
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    home = Path(kept.get("HOME") or "/")
    if not os.access(home, os.W_OK):
        home = folder / "home"
        home.mkdir(mode=0o700)
    # LANG: the image has the one locale; GTK would start a bus for tools that are not there.
    ours = {"HOME": str(home), "LANG": "C.UTF-8", "NO_AT_BRIDGE": "1", "GTK_A11Y": "none"}
    return kept | ours | _entry(folder) | {"XDG_RUNTIME_DIR": str(runtime)}


def _entry(folder: Path) -> dict[str, str]:
    """Variables by which a user whom /etc/passwd does not know has an entry, which dbus-daemon and others want."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        users = folder / "users"
        mine = f"user:x:{os.getuid()}:{os.getgid()}::/:/bin/sh\n"
        users.write_text(Path("/etc/passwd").read_text() + mine)
        # nss_wrapper(1)
        files = {"NSS_WRAPPER_PASSWD": str(users), "NSS_WRAPPER_GROUP": "/etc/group"}
        return {"LD_PRELOAD": "libnss_wrapper.so", **files}
    return {}


def _start_bus(children: Children, folder: Path, environment: dict[str, str]) -> None:
    """Start a D-Bus of the session's own, by which programs of a desktop find each other."""
    ours, theirs = os.pipe()
    address = f"unix:path={folder}/bus"
    command = [
        "dbus-daemon",
        "--session",
        "--nofork",
        "--nopidfile",
        f"--address={address}",
        f"--print-address={theirs}",
    ]
    children.start("dbus-daemon", command, environment, pass_fds=[theirs])
    os.close(theirs)
    if first_line(ours, _PATIENCE) is None:
        said = children.log("dbus-daemon").read_text(errors="replace").strip()
        raise Problem(f"dbus-daemon did not start: {said or 'it said nothing'}", BROKEN)
    environment["DBUS_SESSION_BUS_ADDRESS"] = address


def _start_desktop(children: Children, desktop: Application, folder: Path, environment: dict[str, str]) -> None:
    """Start the desktop; where it can tell, wait until it manages windows: the application's first is one of them."""
    if not desktop.tells:
        children.start("desktop", desktop.command, environment | dict(desktop.environment))
        return
    fifo = folder / "desktop"
    os.mkfifo(fifo, 0o600)
    # Opened for writing too, so that there is no end of file before the desktop has written.
    descriptor = os.open(fifo, os.O_RDWR)
    told = environment | dict(desktop.environment) | {"DESKTOP_READY": str(fifo)}
    children.start("desktop", desktop.command, told)
    if first_line(descriptor, _PATIENCE) is None:
        said = children.log("desktop").read_text(errors="replace").strip()
        raise Problem(f"{desktop.title} did not start: {said or 'it said nothing'}", BROKEN)


def _tell(settings: Settings, application: Application, screen: display.Display) -> None:
    """Say that the session can be reached, to a person and to a program that waits for the file."""
    sys.stderr.write(
        f"viz-app: {application.title} is on port {settings.port} of this host, WebSocket path /websockify, "
        f"page /vnc.html (display {screen.name}, RFB on 127.0.0.1:{screen.rfb_port})\n"
    )
    sys.stderr.flush()
    if settings.ready_file:
        # Complete or not there.
        aside = settings.ready_file.with_name(f"{settings.ready_file.name}.new")
        aside.write_text(f"VNC_PORT={settings.port}\nDISPLAY={screen.name}\n")
        aside.rename(settings.ready_file)


def end_on_signals() -> None:
    """Let the signals by which a session is ended end it in order."""

    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

    def stop(number: int, _: FrameType | None) -> NoReturn:
        for one in numbers:  # a second one would cut the end short
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, stop)
