"""The page in a browser: an application started by a click, its picture, typed text, and errors in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from fixtures.app_sessions import await_status, job_of, jobs, running, sessions, show, start
from fixtures.browser import APPLICATIONS, Visit
from slurm_testbed import SlurmCluster

pytestmark = pytest.mark.deep

USER = "alice"
ALTERED = """
const real = window.fetch;
window.fetch = async (url, options) => {
  const answer = await real(url, options);
  if (!String(url).endsWith("/connection") || window.unaltered) return answer;
  return Response.json({ ...await answer.json(), ...%s });
};
"""
#: The answer to a start comes when the service has told by its WebSocket that it failed.
LATE = """
const real = window.fetch;
window.fetch = async (url, options) => {
  const answer = await real(url, options);
  const told = () => document.querySelector("#told").textContent.includes("failed");
  while (options.method === "POST" && !told()) await new Promise(requestAnimationFrame);
  return answer;
};
"""


def sign_in(page: Page, user: str, password: str) -> None:
    """Open the page, fill in the form, and send it."""
    page.goto("/")
    fill_in(page, user, password)


def fill_in(page: Page, user: str, password: str) -> None:
    """Fill in the form, and send it."""
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def visit(apps: SlurmCluster, browse: Callable[..., Visit]) -> Visit:
    """The page, signed in."""
    made = browse(apps, APPLICATIONS)
    sign_in(made.page, USER, apps.app_sessions.passwords()[USER])
    expect(made.page.get_by_role("button", name="Sign out")).to_be_visible()
    made.console.clear()  # the page asks first whether it is signed in: 401
    return made


def card(page: Page, session_id: str) -> Locator:
    """A session in the list."""
    return page.locator(f'[data-session="{session_id}"]')


def connected(page: Page) -> Locator:
    """The viewer, once it shows a display."""
    return page.locator('.viewer[data-connected="true"]')


def picture(page: Page) -> str:
    """What the display shows in the browser."""
    return str(page.evaluate("document.querySelector('.picture canvas').toDataURL()"))


def calm(slurm: SlurmCluster, page: Page) -> str:
    """What the display shows once two looks, half a second apart, see the same; a cursor may blink."""
    seen = [""]

    def still() -> str | None:
        seen.append(picture(page))
        return seen[-1] if seen[-1] == seen[-2] else None

    return slurm.wait_until(still, "a display that does not change", deadline=60)


def await_keys(slurm: SlurmCluster, page: Page) -> None:
    """Wait until the editor takes keys, some time after its window is there, and leave it empty."""
    before = calm(slurm, page)

    def shows() -> bool:
        page.keyboard.press("x")
        return calm(slurm, page) != before

    slurm.wait_until(shows, "a key to show", deadline=60)
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")


def drawn(page: Page) -> int:
    """How many colours the display has in the browser."""
    return int(
        page.evaluate(
            """() => {
                // Of a copy: Chromium warns of canvases that are read often.
                const { width, height } = document.querySelector(".picture canvas");
                const copy = Object.assign(document.createElement("canvas"), { width, height });
                const context = copy.getContext("2d", { willReadFrequently: true });
                context.drawImage(document.querySelector(".picture canvas"), 0, 0);
                const { data } = context.getImageData(0, 0, width, height);
                return new Set(new Uint32Array(data.buffer)).size;
            }"""
        )
    )


@pytest.mark.row("V-07.1", "V-07.2", "V-11.3")
def test_application_is_started_typed_into_and_stopped(apps: SlurmCluster, visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_text("None yet.")).to_be_visible()
    visit.picture("applications")
    page.get_by_role("button", name="Start Text editor", exact=True).click()
    expect(connected(page)).to_be_visible()
    (session,) = sessions(apps)
    apps.wait_until(lambda: drawn(page) > 50, "a picture", deadline=60, state=lambda: f"{drawn(page)} colours")
    size = page.evaluate("(({ width, height }) => [width, height])(document.querySelector('.picture canvas'))")
    assert size == [1280, 800]
    assert job_of(apps, session).record().state == "RUNNING"

    await_keys(apps, page)
    before = calm(apps, page)
    page.keyboard.type("Typed in a browser,\nshown by gedit on a node of the cluster.\n", delay=5)
    apps.wait_until(lambda: picture(page) != before, "what was typed", deadline=60)
    calm(apps, page)
    visit.picture("session")

    page.keyboard.press("Shift+Escape")
    expect(page.get_by_role("link", name="← Applications")).to_be_focused()
    page.keyboard.press("Enter")
    expect(card(page, session["id"])).to_contain_text(f"job {session['job_id']} · on {session['node']}")
    visit.picture("sessions")
    card(page, session["id"]).get_by_role("button", name="Stop").click()
    expect(card(page, session["id"])).to_have_count(0)

    assert show(apps, session) is None
    assert jobs(apps) == []
    assert visit.console == []


@pytest.mark.row("V-07.1", "V-07.2")
def test_all_is_reached_by_keyboard(apps: SlurmCluster, browse: Callable[..., Visit]) -> None:
    page = browse(apps, APPLICATIONS).page
    page.goto("/")
    page.get_by_label("User name").focus()
    page.keyboard.type(USER)
    page.keyboard.press("Tab")
    page.keyboard.type(apps.app_sessions.passwords()[USER])
    page.keyboard.press("Enter")
    start_button = page.get_by_role("button", name="Start Terminal", exact=True)
    expect(start_button).to_be_visible()
    for _ in range(20):
        if start_button.evaluate("(element) => element === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(connected(page)).to_be_visible()
    page.keyboard.press("Shift+Escape")
    stop = page.get_by_role("button", name="Stop")
    for _ in range(10):
        if stop.evaluate("(element) => element === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Start an application")).to_be_visible()
    apps.wait_until(lambda: sessions(apps) == [], "the session to be gone", deadline=60)


def test_what_happens_elsewhere_shows_without_loading_anew(apps: SlurmCluster, visit: Visit) -> None:
    page = visit.page
    session = await_status(apps, start(apps, "xterm"), "running")
    expect(card(page, session["id"])).to_have_attribute("data-status", "running")

    job_of(apps, session).cancel()

    expect(card(page, session["id"])).to_contain_text("Its job was cancelled.")
    card(page, session["id"]).get_by_role("button", name="Restart").click()
    expect(card(page, session["id"])).to_have_attribute("data-status", "running")
    assert visit.console == []


def test_viewer_says_when_its_session_ends_and_comes_back_with_a_restart(apps: SlurmCluster, visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Start Terminal", exact=True).click()
    expect(connected(page)).to_be_visible()
    (session,) = sessions(apps)

    job_of(apps, session).cancel()

    expect(page.get_by_text("The session has ended.")).to_be_visible()
    expect(page.get_by_text("Its job was cancelled.", exact=True)).to_be_visible()
    page.get_by_role("button", name="Restart").click()
    expect(connected(page)).to_be_visible()


def test_viewer_comes_back_when_the_service_was_killed(apps: SlurmCluster, visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Start Terminal", exact=True).click()
    expect(connected(page)).to_be_visible()

    apps.substrate.service("app-sessions", "app-sessions", "kill")

    expect(page.get_by_text("The connection was lost.")).to_be_visible()
    expect(connected(page)).to_be_visible()
    (session,) = sessions(apps)
    assert session["run"] == 1


@pytest.mark.row("V-06.4")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "wrong567"}, re.compile("refuses the connection")),
        ({"protocols": ["binary", "stale"]}, re.compile("This is no token for a display: open the session again")),
    ],
)
def test_viewer_says_why_it_gets_no_display(
    apps: SlurmCluster, visit: Visit, change: dict[str, object], said: re.Pattern[str]
) -> None:
    session = running(apps, "xterm")

    # What the service answers is altered in the page itself: Playwright's own requests do not know the site's name.
    visit.page.add_init_script(ALTERED % json.dumps(change))
    visit.page.reload()
    card(visit.page, session["id"]).get_by_role("link", name="Open").click()

    expect(visit.page.locator(".cover")).to_contain_text(said)
    visit.page.evaluate("window.unaltered = true")
    visit.page.get_by_role("button", name="Connect again").click()
    expect(connected(visit.page)).to_be_visible()


@pytest.fixture
def down(apps: SlurmCluster) -> Iterator[None]:
    """No session can start."""
    apps.run(["scontrol", "update", "partitionname=viz", "state=down"])
    yield
    apps.run(["scontrol", "update", "partitionname=viz", "state=up"])


@pytest.mark.row("V-10.2")
@pytest.mark.usefixtures("down")
def test_error_is_said_in_words(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Start Text editor", exact=True).click()

    expect(page.get_by_text("It could not be started, or failed.")).to_be_visible()
    expect(page.locator(".cover")).to_contain_text("Text editor cannot start: the partition viz is down")
    page.get_by_role("link", name="← Applications").click()
    visit.picture("session-error")


@pytest.mark.usefixtures("down")
def test_answer_that_comes_late_undoes_nothing(visit: Visit) -> None:
    visit.page.add_init_script(LATE)
    visit.page.reload()

    visit.page.get_by_role("button", name="Start Text editor", exact=True).click()

    expect(visit.page.get_by_text("It could not be started, or failed.")).to_be_visible()


@pytest.mark.row("V-10.2")
def test_quota_is_said_in_words(apps: SlurmCluster, visit: Visit) -> None:
    page = visit.page
    for _ in range(5):
        start(apps, "xterm")
    page.get_by_role("button", name="Start Terminal", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="5 live sessions, which is the most")).to_be_visible()


def test_wrong_password_is_said_and_the_name_stays(apps: SlurmCluster, browse: Callable[..., Visit]) -> None:
    page = browse(apps, APPLICATIONS).page

    sign_in(page, USER, "wrong")

    expect(page.get_by_role("alert").filter(has_text="wrong user name or password")).to_be_visible()
    expect(page.get_by_label("User name")).to_have_value(USER)


def test_users_see_their_own_alone(apps: SlurmCluster, browse: Callable[..., Visit]) -> None:
    session = running(apps, "xterm")
    other = browse(apps, APPLICATIONS)
    sign_in(other.page, "bob", apps.app_sessions.passwords()["bob"])
    expect(other.page.get_by_text("None yet.")).to_be_visible()
    other.page.goto(f"/#/session/{session['id']}")
    expect(other.page.get_by_text("There is no such session of yours.")).to_be_visible()

    admin = browse(apps, APPLICATIONS)
    sign_in(admin.page, "dave", apps.app_sessions.passwords()["dave"])
    admin.page.get_by_role("button", name="Everybody's").click()
    expect(card(admin.page, session["id"])).to_contain_text("of alice")
    expect(card(admin.page, session["id"]).get_by_role("link", name="Open")).to_have_count(0)
    card(admin.page, session["id"]).get_by_role("button", name="Stop").click()
    expect(card(admin.page, session["id"])).to_have_count(0)
    assert show(apps, session) is None


def test_next_user_of_the_page_sees_nothing_of_the_last(apps: SlurmCluster, browse: Callable[..., Visit]) -> None:
    session = running(apps, "xterm")
    page = browse(apps, APPLICATIONS).page
    sign_in(page, "dave", apps.app_sessions.passwords()["dave"])
    page.get_by_role("button", name="Everybody's").click()
    expect(card(page, session["id"])).to_contain_text("of alice")

    page.get_by_role("button", name="Sign out").click()
    fill_in(page, "bob", apps.app_sessions.passwords()["bob"])

    expect(page.get_by_role("heading", name="My sessions")).to_be_visible()
    expect(page.get_by_text("None yet.")).to_be_visible()
    expect(card(page, session["id"])).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_small_window_in_light_and_dark(apps: SlurmCluster, visit: Visit, scheme: str) -> None:
    session = running(apps)
    page = visit.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 390, "height": 800})
    expect(card(page, session["id"])).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    visit.picture(f"applications-small-{scheme}")
    page.get_by_role("link", name="Open").click()
    expect(connected(page)).to_be_visible()
    apps.wait_until(lambda: drawn(page) > 50, "a picture", deadline=60, state=lambda: f"{drawn(page)} colours")
