"""Sessions as their users have them: from the request to the picture, and to the end, by the API alone."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from math import cos, pi, sin

import pytest
import requests
import websocket
from PIL import Image

from fixtures.app_sessions import (
    Session,
    await_status,
    delete,
    job_of,
    jobs,
    running,
    screen,
    sessions,
    show,
    start,
)
from fixtures.screen import Refused, changed, colours
from slurm_testbed import SlurmCluster
from slurm_testbed.errors import AppSessionsError

#: A stack of nine containers, and an image of 170 MB on each node: `invoke test --deep -- tests/viz`.
pytestmark = pytest.mark.deep

USERS = ("alice", "bob", "carol", "dave")


@pytest.mark.row(
    "V-02.1", "V-02.3", "V-02.5", "V-02.6", "V-05.1", "V-05.2", "V-05.3", "V-05.4", "V-05.6", "V-06.1", "V-06.2"
)
def test_session_goes_from_creating_over_pending_and_running_to_nothing(apps: SlurmCluster) -> None:
    with listener(apps) as told:
        made = start(apps)
        assert (made["status"], made["owner"], made["title"], made["job_id"]) == (
            "creating",
            "alice",
            "Text editor",
            None,
        )
        seen = await_status(apps, made, "running")
        record = job_of(apps, seen).record()

        assert (record.nodes, record.fields["UserId"], record.fields["Partition"]) == (
            seen["node"],
            "alice(1000)",
            "viz",
        )
        assert [session["id"] for session in sessions(apps)] == [made["id"]]
        address = apps.run(["getent", "ahostsv4", seen["node"]], host="app-sessions").stdout.split()[0]
        assert seen["node_ip"] == address
        assert seen["displayUrl"] == f"ws://{address}:{seen['vnc_port']}"
        with screen(apps, seen) as display:
            assert display.size == (1280, 800)
            assert colours(display.await_calm()) > 50
        delete(apps, seen)
        states = told.until_deleted(made["id"])

    assert (show(apps, made), jobs(apps)) == (None, [])
    assert job_of(apps, seen).wait().state == "CANCELLED"
    assert states == ["creating", "pending", "running"]


@pytest.mark.row("V-06.3", "V-06.4")
def test_what_is_typed_shows_and_a_wrong_password_is_refused(apps: SlurmCluster) -> None:
    session = running(apps)

    with screen(apps, session) as display:
        before = display.await_calm()
        display.write("typed through the service")
        display.await_picture(lambda picture: wide(changed(before, picture)), "the typed text")
    with pytest.raises(Refused), screen(apps, session, password="wrong567"):
        pytest.fail("it let us in")


def benzene() -> str:
    """The molecule as a file of the Protein Data Bank, a line for each atom."""
    record = "HETATM{0:5d}  {1}{2}  BNZ A   1    {3:8.3f}{4:8.3f}   0.000  1.00  0.00           {1}"
    # Distances from the middle in ångström, six of each every 60 degrees.
    corners = [(element, radius, turn) for element, radius in (("C", 1.39), ("H", 2.48)) for turn in range(6)]
    return "\n".join(
        record.format(number, element, turn + 1, radius * cos(turn * pi / 3), radius * sin(turn * pi / 3))
        for number, (element, radius, turn) in enumerate(corners, 1)
    )


#: Of the viewer's window, without title and menu: left, above, right, below.
CANVAS = (40, 120, 1240, 780)


def lit(picture: Image.Image) -> int:
    """How many pixels of the canvas are not as dark as its background."""
    return sum(count for count, colour in picture.crop(CANVAS).getcolors(1 << 24) if max(colour) > 60)


@pytest.mark.row("V-11.2")
def test_scientific_viewer_shows_the_molecule_that_is_opened_in_it(apps: SlurmCluster) -> None:
    session = running(apps, "rasmol")
    apps.run(["tee", "benzene.pdb"], stdin=benzene(), user="alice", host=session["node"], workdir="/home/alice")

    with screen(apps, session) as display:
        empty = display.await_calm()
        display.press("Ctrl", "o")
        display.await_picture(lambda picture: lit(picture) > 300_000, "the dialog to open a file")
        # The first letter brings the field for the rest.
        for typed in ("/", "home/alice/benzene.pdb"):
            display.await_calm()
            display.write(typed)
        display.await_calm()
        display.press("Return")
        shown = display.await_picture(lambda picture: 500 < lit(picture) < 100_000, "the molecule")

    left, above, right, below = changed(empty.crop(CANVAS), shown.crop(CANVAS)) or (0, 0, 0, 0)
    # 4.96 ångström across, and 4.30: a ring that lies flat.
    assert 1.05 < (right - left) / (below - above) < 1.25, (left, above, right, below)


@pytest.mark.row("V-08")
def test_two_sessions_on_one_node_are_apart(apps: SlurmCluster) -> None:
    apps.run(["scontrol", "update", "nodename=n2", "state=drain", "reason=a test"])
    with ThreadPoolExecutor() as threads:
        one, two = threads.map(lambda user: running(apps, user=user), ("alice", "bob"))

    assert (one["node"], two["node"]) == ("n1", "n1")
    assert one["vnc_port"] != two["vnc_port"]
    with screen(apps, one) as first, screen(apps, two) as second:
        before = [first.await_calm(), second.await_calm()]
        first.write("only in the first session of the two")
        first.await_picture(lambda picture: wide(changed(before[0], picture)), "what was typed into the first")
        assert not wide(changed(before[1], second.await_calm())), "what was typed into one shows in the other"


@pytest.mark.row("V-11.4")
def test_two_users_cannot_see_each_others_sessions(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")

    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/restart"), ("POST", "/connection")):
        with pytest.raises(AppSessionsError, match=f"404 bob has no session {session['id']}"):
            apps.app_sessions.api(method, f"app/sessions/{session['id']}{path}", user="bob")
    assert sessions(apps, "bob") == []
    listed = apps.app_sessions.api("GET", "app/sessions?everybody=true", user="dave").json()["sessions"]
    assert [one["owner"] for one in listed] == ["alice"]
    with pytest.raises(AppSessionsError, match="404"):
        apps.app_sessions.api("POST", f"app/sessions/{session['id']}/connection", user="dave")

    apps.app_sessions.api("DELETE", f"app/sessions/{session['id']}", user="dave")
    apps.wait_until(lambda: show(apps, session) is None, "the administrator to have ended it", deadline=60)
    assert jobs(apps) == []


@pytest.mark.row("V-02.4", "V-05.5")
def test_restart_is_a_new_job_of_the_same_session(apps: SlurmCluster) -> None:
    first = running(apps, "xterm")

    apps.app_sessions.api("POST", f"app/sessions/{first['id']}/restart")
    second = await_status(apps, first, "running")

    assert second["run"] == first["run"] + 1
    assert jobs(apps) == [second["job_id"]]
    assert second["job_id"] != first["job_id"]
    assert job_of(apps, first).wait().state == "CANCELLED"
    with screen(apps, second) as display:
        assert colours(display.await_calm()) > 1


@pytest.mark.row("V-11.5")
def test_quota_is_reached_and_left_again(apps: SlurmCluster) -> None:
    made = [start(apps, "xterm") for _ in range(5)]

    with pytest.raises(AppSessionsError, match="409 alice has 5 live sessions, which is the most: stop one of them"):
        start(apps, "xterm")
    assert apps.app_sessions.api("GET", "user").json()["sessions_left"] == 0
    delete(apps, made[0])
    assert start(apps, "xterm")["status"] == "creating"


@pytest.mark.row("V-11.6")
def test_submission_and_end_are_audited(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")
    delete(apps, session)

    path = f"app/audit?session_id={session['id']}"
    log = apps.app_sessions.api("GET", path, user="dave").json()["entries"]

    told = [(one["action"], one["who"], one["job_id"]) for one in reversed(log)]
    job = session["job_id"]
    assert told == [
        ("create", "alice", None),
        ("submit", "service", job),
        ("running", "service", job),
        ("delete", "alice", job),
        ("deleted", "service", job),
    ]


@pytest.mark.row("V-01.1", "V-01.2", "V-01.3", "V-01.4", "V-01.5", "V-11.1")
@pytest.mark.parametrize("way", ["sbatch", "slurmrestd"])
def test_integration_test_of_the_seed_prints_its_lines(apps: SlurmCluster, way: str) -> None:
    env = {"APP_SESSIONS_SUBMIT": way, "SLURM_JWT_KEY_FILE": "/shared/slurm-config/jwt_hs256.key"}
    done = apps.run(
        ["app-sessions", "try", "gedit", "--user=alice", "--seconds=120"], host="app-sessions", user="root", env=env
    )

    assert re.fullmatch(
        r"=== Testing Slurm App Manager ===\n"
        r"Session ID: test-session-001\nApp ID: gedit\nVNC Port: 6080\n\n"
        r"Submitting Slurm job...\n✅ Job submitted successfully!\n   Job ID: \d+\n   Status: \w+\n\n"
        r"Waiting for job to start \(max 120 seconds\)...\n(?:   \[\d+s\] Status: PENDING.*\n)*"
        r"   \[\d+s\] Status: RUNNING on n\d\n\n"
        r"✅ Job is RUNNING!\n   Node: n\d\n   Node IP: [\d.]+\n   VNC URL: ws://[\d.]+:6080\n\n"
        r"Cancelling job...\n✅ Job cancelled successfully\n\n=== Test Complete ===\n",
        done.stdout,
    ), done.stdout
    apps.wait_until(lambda: not jobs(apps), "the job to be gone", deadline=60)


def test_secrets_are_in_no_log_no_process_list_and_no_record(apps: SlurmCluster) -> None:
    session = running(apps)
    way = apps.app_sessions.api("POST", f"app/sessions/{session['id']}/connection").json()
    with screen(apps, session) as display:
        display.await_calm()

    commands = ["bash", "-c", "cat /proc/[0-9]*/cmdline"]
    seen = {
        "the service's log": apps.substrate.logs("app-sessions", "app-sessions"),
        "processes of its host": apps.run(commands, host="app-sessions").stdout,
        "processes of the node": apps.run(commands, host=session["node"]).stdout,
        "slurmctld's log": apps.substrate.logs("slurmctld", "slurmctld"),
        "the job": apps.run(["scontrol", "show", "job", "--details", str(session["job_id"])]).stdout,
        "the session": json.dumps(show(apps, session)),
        "the audit": apps.app_sessions.api("GET", "app/audit", user="dave").text,
    }
    for secret in (
        way["password"],
        way["protocols"][1],
        apps.app_sessions.token(),
        apps.app_sessions.passwords()["alice"],
    ):
        assert not [place for place, text in seen.items() if secret in text]
    modes = apps.run(["bash", "-c", "stat --format=%a /var/lib/app-sessions/*"], host="app-sessions").stdout.split()
    assert set(modes) == {"600"}


def test_wrong_login_is_refused_by_pam(apps: SlurmCluster) -> None:
    for user in ("alice", "nobody-here", "root"):
        answer = requests.post(
            f"{apps.app_sessions.url}/api/login", json={"username": user, "password": "wrong"}, timeout=60
        )
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, "wrong user name or password")


def test_twenty_sessions_at_once_have_each_their_own_picture(apps: SlurmCluster) -> None:
    with ThreadPoolExecutor(20) as threads:
        made = [start(apps, "xterm", user) for user in USERS for _ in range(5)]
        found = list(threads.map(lambda session: await_status(apps, session, "running", deadline=400), made))

    places = {(session["node"], session["vnc_port"]) for session in found}
    assert len(places) == 20
    assert {node for node, _ in places} == {"n1", "n2"}
    pictures = []
    for number, session in enumerate(found):
        with screen(apps, session) as display:
            before = display.await_calm()
            display.write("x" * (10 + 2 * number))
            shown = display.await_picture(
                lambda picture, before=before: wide(changed(before, picture)), "what was typed"
            )
            pictures.append(display.await_calm().tobytes())
            assert shown.size == (1280, 800)
    assert len(set(pictures)) == 20


# --- what the service tells ---------------------------------------------------------------------------------


class Told:
    """What the service tells over its WebSocket."""

    def __init__(self, slurm: SlurmCluster, user: str) -> None:
        url = slurm.app_sessions.url.replace("http", "ws", 1) + "/api/app/events"
        header = [f"Authorization: Bearer {slurm.app_sessions.token(user)}"]
        self._socket = websocket.create_connection(url, header=header, timeout=60)
        first = json.loads(self._socket.recv())
        assert first == {"type": "sessions", "sessions": []}
        assert json.loads(self._socket.recv())["ok"] is True

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def until_deleted(self, session_id: str) -> list[str]:
        """The states that a session had, without repeats, until it was deleted."""
        states: list[str] = []
        began = time.monotonic()
        while time.monotonic() - began < 60:
            message = json.loads(self._socket.recv())
            if message["type"] == "deleted":
                assert message["id"] == session_id
                return states
            session: Session = message["session"]
            if session["status"] not in states[-1:]:
                states.append(session["status"])
        raise AssertionError(f"it was not told that the session is deleted, but {states}")


def listener(slurm: SlurmCluster, user: str = "alice") -> Told:
    """Listens to what the service tells a user."""
    return Told(slurm, user)


@pytest.mark.row("V-11.3")
def test_only_ones_own_sessions_are_told(apps: SlurmCluster) -> None:
    with listener(apps, "bob") as told:
        other = running(apps, "xterm")
        own = start(apps, "xterm", "bob")
        delete(apps, own)
        delete(apps, other)
        assert told.until_deleted(own["id"])[0] == "creating"


def wide(box: tuple[int, int, int, int] | None) -> bool:
    """Whether two pictures differ by more than a cursor."""
    return box is not None and box[2] - box[0] > 40
