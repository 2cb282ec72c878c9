"""The image viz-app under Docker: its picture, its password, what is typed into it, and how it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.screen import Refused, changed, colours, width
from fixtures.viz import PASSWORD_FILE, AppStart, RunningApp, new_password
from slurm_testbed import engine
from slurm_testbed.images import image_name, sizes
from slurm_testbed.readiness import wait_until

#: Megabytes, uncompressed; of the SIF, compressed.
BUDGET, SIF_BUDGET = 550, 270
TEXT = "Hello from a browser, 1234567890."


@pytest.fixture(scope="module")
def _gedit(app_start: AppStart) -> Iterator[RunningApp]:
    with app_start(env={"GEOMETRY": "1000x700"}) as app:
        yield app


@pytest.fixture
def gedit(_gedit: RunningApp) -> RunningApp:
    """gedit on a display of 1000 x 700 pixels."""
    _gedit.container.reload()
    assert _gedit.container.status == "running", _gedit.logs()
    return _gedit


# --- the picture and the password ------------------------------------------------------------------------


@pytest.mark.row("V-03.4", "V-03.5", "V-03.6", "V-06.2")
@pytest.mark.parametrize("way", ["over_tcp", "over_websocket"])
def test_picture_has_the_size_that_was_asked_for_and_is_not_blank(gedit: RunningApp, way: str) -> None:
    with getattr(gedit, way)() as screen:
        picture = screen.await_calm()

    assert screen.size == picture.size == (1000, 700)
    assert colours(picture) > 50, "a window with text has many colours, for its letters are smooth"
    # gedit fills the display: its page is white.
    white = sum(count for count, colour in picture.getcolors(1 << 24) if min(colour) > 240)
    assert white > 0.4 * 1000 * 700, f"{white} white pixels"


@pytest.mark.deep
@pytest.mark.row("V-03.4")
def test_xfce_has_its_panel_and_the_application(xfce_start: AppStart) -> None:
    with xfce_start("note.txt") as app, app.over_websocket() as screen:
        before = screen.await_calm()
        screen.write(TEXT)
        screen.await_picture(lambda picture: width(changed(before, picture)) > 150, "the text that was typed")
        # It is light, along the upper edge.
        screen.await_picture(lambda picture: min(picture.getpixel((640, 20))) > 200, "the panel")
        running = app.run("bash", "-c", "cat /proc/[0-9]*/comm").split()

    assert {"xfce4-session", "xfwm4", "xfce4-panel", "gedit"} <= set(running)


@pytest.mark.row("V-06.4")
@pytest.mark.parametrize("way", ["over_tcp", "over_websocket"])
def test_wrong_password_is_refused(gedit: RunningApp, way: str) -> None:
    with pytest.raises(Refused, match="Authentication fail|Auth fail"), getattr(gedit, way)(password="wrong567"):
        pytest.fail("it let us in")


@pytest.mark.row("V-06.4")
def test_no_other_kind_of_authentication_is_offered(gedit: RunningApp) -> None:
    script = r"""
        exec 3<> /dev/tcp/127.0.0.1/5901
        head -c 12 <&3
        printf 'RFB 003.008\n' >&3
        head -c 2 <&3 | od -An -tu1
    """

    # One security type, 2: VNC authentication (RFC 6143, 7.1.2).
    assert gedit.run("bash", "-c", script).split() == ["RFB", "003.008", "1", "2"]


def test_page_of_novnc_is_served_beside_the_websocket(gedit: RunningApp) -> None:
    import requests

    address, port = gedit.slurm.substrate.endpoint("viz-app", 6080)

    page = requests.get(f"http://{address}:{port}/vnc.html", timeout=30)
    folder = requests.get(f"http://{address}:{port}/core/", timeout=30)

    assert "noVNC" in page.text
    assert folder.status_code == 404, "folders are listed"


def test_rfb_is_for_this_host_alone(gedit: RunningApp) -> None:
    # Local address and state of sockets that listen: proc_net_tcp(5). 5901 is 170D.
    table = gedit.run("bash", "-c", "cat /proc/net/tcp*")
    listening = re.findall(r"^ *\d+: (\w+):(\w+) \w+:\w+ 0A ", table, re.MULTILINE)

    assert {address for address, port in listening if port == "170D"} <= {"0100007F", "0" * 24 + "01000000"}
    assert ("0100007F", "170D") in listening
    assert ("00000000", "17C0") in listening, "websockify does not listen for everybody"
    assert {port for _, port in listening} == {"170D", "17C0"}


def test_nobody_else_on_the_host_can_use_the_display(gedit: RunningApp) -> None:
    ask = ["hsetroot", "-solid", "#2e3440"]
    display = {"DISPLAY": ":1", "XAUTHORITY": gedit.run("sh", "-c", "echo /tmp/viz-app-*/Xauthority").strip()}
    host = str(gedit.container.name)

    # The same question, of one who may not read the cookie.
    other = gedit.slurm.run(ask, host=host, user="bob", env=display, check=False)
    mine = gedit.slurm.run(ask, host=host, user="alice", env=display, check=False)

    assert other.returncode != 0
    assert "Cannot open X display" in other.stdout + other.stderr
    assert mine.returncode == 0, mine.stderr


def test_password_is_in_no_argument_no_variable_and_no_log(gedit: RunningApp) -> None:
    script = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; cat /tmp/viz-app-*/*.log"
    seen = gedit.run("bash", "-c", script)

    assert "websockify" in seen
    assert gedit.password not in seen
    assert gedit.password not in gedit.logs()
    assert PASSWORD_FILE not in re.sub(r"(?s)^.*?viz_app", "", seen, count=1).partition("VNC_PASSWORD_FILE=")[0]
    modes = gedit.run("bash", "-c", "stat -c '%a %U' /tmp/viz-app-* /tmp/viz-app-*/passwd /tmp/viz-app-*/Xauthority")
    assert modes.splitlines() == ["700 alice", "600 alice", "600 alice"]


# --- using it --------------------------------------------------------------------------------------------


@pytest.mark.row("V-06.3")
def test_typed_text_shows_and_is_in_the_file_that_gedit_saved(app_start: AppStart) -> None:
    with app_start("note.txt") as app, app.over_websocket() as screen:
        before = screen.await_calm()
        screen.write(TEXT)
        screen.await_picture(lambda picture: width(changed(before, picture)) > 150, "the text that was typed")
        after = screen.await_calm()
        screen.press("Ctrl", "s")
        saved = wait_until(
            lambda: app.run("sh", "-c", "cat note.txt 2> /dev/null; true"), "the saved file", deadline=60
        )
        # With nothing unsaved the window closes, and with it the session.
        screen.press("Ctrl", "q")
        status = app.await_end()

    left, above, _, _ = changed(before, after) or (0, 0, 0, 0)
    assert saved == f"{TEXT}\n"
    assert left < 60, "the text does not begin on the left of the page"
    assert above < 100, "the text is not in the first line, or above it in the title"
    assert status == 0


@pytest.mark.row("V-11.2")
def test_application_is_another_one_by_its_name_alone(app_start: AppStart) -> None:
    with app_start(env={"APP": "xterm"}) as app, app.over_websocket() as screen:
        screen.await_calm()
        screen.write("echo $((6 * 7)) > answer\n")
        wait_until(lambda: app.run("sh", "-c", "cat answer 2> /dev/null; true") == "42\n", "the answer", deadline=60)
        screen.write("exit\n")

        assert app.await_end() == 0, app.logs()


@pytest.mark.row("V-11.2")
def test_application_is_a_file_that_somebody_brings_and_its_status_is_the_sessions(app_start: AppStart) -> None:
    folder = "/etc/viz-app/apps"
    script = f"""
        printf 'title = "Answer"\\ncommand = ["sh", "-c", "exit 42"]\\n' > {folder}/answer.toml
        APP=answer exec viz-app
    """
    options = {"entrypoint": ["bash", "-c", script], "user": "root", "env": {"VNC_PASSWORD_FILE": PASSWORD_FILE}}
    with app_start(ready=False, **options) as app:
        assert app.await_end() == 42, app.logs()


@pytest.mark.row("V-08")
def test_two_sessions_on_one_network_have_their_own_displays_and_ports(app_start: AppStart) -> None:
    with app_start("first.txt") as first:
        network = {"network_mode": f"container:{first.container.id}", "ports": {}}
        with app_start("second.txt", env={"VNC_PORT": "6081"}, **network) as second:
            other = RunningApp(first.container, second.password)
            with first.over_websocket() as one, other.over_tcp(5902) as two:
                before = [screen.await_calm() for screen in (one, two)]
                one.write("in the one")
                two.write("in the two")
                for screen, empty in zip((one, two), before, strict=True):
                    screen.await_picture(lambda picture, empty=empty: width(changed(empty, picture)) > 50, "the text")
                    screen.press("Ctrl", "s")
                for app, name, text in ((first, "first.txt", "in the one\n"), (second, "second.txt", "in the two\n")):
                    read = ["sh", "-c", f"cat {name} 2> /dev/null; true"]
                    wait_until(lambda app=app, read=read: app.run(*read), name, deadline=60)
                    assert app.run(*read) == text
            with pytest.raises(Refused), other.over_tcp(5901):
                pytest.fail("the password of one is that of the other")


def test_session_runs_as_any_user_on_a_root_that_cannot_be_written(app_start: AppStart) -> None:
    password = new_password()
    script = 'umask 077; echo "$SECRET" > /tmp/password; unset SECRET; VNC_PASSWORD_FILE=/tmp/password exec viz-app'
    options = {"entrypoint": ["bash", "-c", script], "user": "12345:12345", "read_only": True, "tmpfs": {"/tmp": ""}}
    client = engine.connect()
    container = client.containers.run(
        image_name("viz-app"),
        environment={"SECRET": password},
        ports={"6080/tcp": ("127.0.0.1", None)},
        labels={engine.LABEL_OWNER: engine.owner(), engine.LABEL_CLUSTER: "viz-app"},
        detach=True,
        **options,
    )
    try:
        app = RunningApp(container, password)
        app.await_ready()
        with app.over_websocket() as screen:
            assert colours(screen.await_calm()) > 50
    finally:
        container.remove(force=True)


def test_session_ends_in_order_when_it_is_told_to(app_start: AppStart) -> None:
    with app_start() as app:
        app.container.kill("SIGTERM")
        status = app.await_end()

        assert status == 128 + 15


def test_session_ends_with_a_sentence_when_its_display_is_gone(app_start: AppStart) -> None:
    with app_start() as app:
        app.run("bash", "-c", "kill -KILL $(grep -lx Xvnc /proc/[0-9]*/comm | cut -d/ -f3)", user="root")
        status = app.await_end()

        # The application may notice it first.
        assert status == 70 or "ended" not in app.logs(), app.logs()
        assert status != 0


# --- what it refuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "status", "said"),
    [
        ({"APP": "gedit2"}, 69, "there is no application 'gedit2': there are gedit, "),
        ({"APP": "../desktop"}, 69, "there is no application '../desktop': there are gedit, "),
        ({"APP": "paraview"}, 69, "this image has no paraview for the application paraview: there are gedit, "),
        ({"VNC_PORT": "80800"}, 64, "VNC_PORT=80800 is no port"),
        ({"GEOMETRY": "large"}, 64, "GEOMETRY=large is no size"),
        ({"VNC_PASSWORD_FILE": "/nowhere"}, 77, "VNC_PASSWORD_FILE=/nowhere cannot be read: No such file or directory"),
        ({"VNC_PASSWORD_FILE": "/etc/shadow"}, 77, "VNC_PASSWORD_FILE=/etc/shadow cannot be read: Permission denied"),
        ({"VNC_PASSWORD_FILE": "/etc/passwd"}, 77, "can be read by others (mode 0644): chmod 400"),
        ({"VNC_PASSWORD_FILE": ""}, 77, "there is no VNC_PASSWORD_FILE, and no terminal to tell a password on"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_a_status_of_its_own(
    app_start: AppStart, env: dict[str, str], status: int, said: str
) -> None:
    with app_start(ready=False, env=env) as app:
        ended = app.await_end()

        assert (ended, app.logs().count("\n")) == (status, 1), app.logs()
        assert app.logs().startswith("viz-app: ")
        assert said in app.logs()


@pytest.mark.parametrize("password", ["short", "longer than eight", "with ä"])
def test_password_that_vnc_would_not_take_is_refused(app_start: AppStart, password: str) -> None:
    with app_start(ready=False, password=password) as app:
        assert app.await_end() == 77, app.logs()
        assert "holds no password for VNC: give 6 to 8 letters" in app.logs()


def test_port_that_is_taken_is_said_before_anything_starts(gedit: RunningApp) -> None:
    name = str(gedit.container.name)

    done = gedit.slurm.run(["viz-app"], host=name, user="alice", check=False)

    assert done.returncode == 75
    assert done.stderr == "viz-app: port 6080 is taken on this host: give another one as VNC_PORT\n"


def test_password_that_was_made_is_told_on_the_terminal_alone(app_start: AppStart) -> None:
    with app_start(ready=False, env={"VNC_PASSWORD_FILE": ""}, tty=True) as app:
        app.await_ready()
        told = re.findall(r"the password of this session is (\w+)", app.logs())
        script = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; cat /tmp/viz-app-*/*.log"
        seen = app.run("bash", "-c", script)

        assert len(told) == 1
        assert len(told[0]) == 8
        assert told[0] not in seen
        with app.over_websocket(told[0]) as screen:
            assert colours(screen.await_calm()) > 50


# --- its size --------------------------------------------------------------------------------------------


def test_image_is_within_its_budget(app_image: str) -> None:
    megabytes = sizes(engine.connect(), [app_image])[app_image].uncompressed / 1e6

    assert megabytes <= BUDGET, f"{app_image} has {megabytes:.1f} MB"


def test_image_for_apptainer_is_within_its_budget(app_sif: Path) -> None:
    megabytes = app_sif.stat().st_size / 1e6

    assert megabytes <= SIF_BUDGET, f"{app_sif} has {megabytes:.1f} MB"
