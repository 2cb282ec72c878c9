"""viz-app: its settings, its password, and the files of its applications."""

from __future__ import annotations

from pathlib import Path

import pytest
from viz_app import applications, password
from viz_app.applications import Application
from viz_app.problem import NO_APPLICATION, NO_PASSWORD, USAGE, Problem
from viz_app.settings import Settings

from slurm_testbed import data

SHIPPED = data.images() / "viz-app" / "rootfs" / "etc" / "viz-app"


def test_nothing_given_is_gedit_on_the_usual_port() -> None:
    assert Settings.load({}) == Settings("gedit", 6080, (1280, 800), None, None)


@pytest.mark.parametrize("port", ["0", "65536", "6080x", "-1", "\uff11"])
def test_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(Problem, match="is no port") as error:
        Settings.load({"VNC_PORT": port})

    assert error.value.status == USAGE


@pytest.mark.parametrize("geometry", ["100x800", "1280", "1280x800x24", "12800x800", "1280X800"])
def test_size_that_is_none_is_refused(geometry: str) -> None:
    with pytest.raises(Problem, match="is no size"):
        Settings.load({"GEOMETRY": geometry})


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*/*.toml")), ids=lambda path: path.stem)
def test_each_file_describes_something(path: Path) -> None:
    found = Application.load(path)

    assert found.title
    assert found.packages, "the image would be built without it"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "title = 'x'",
        "title = 'x'\ncommand = 'gedit'",
        "title = 'x'\ncommand = []\nnonsense = 1",
        "title = 'x'\ncommand = [1]",
        "title = ",
    ],
)
def test_file_that_describes_nothing_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.toml").write_text(text)

    with pytest.raises(Problem, match=r"odd\.toml does not describe an application") as error:
        Application.load(tmp_path / "odd.toml")

    assert error.value.status == NO_APPLICATION


def test_application_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "shell.toml").write_text("title = 'A shell'\ncommand = ['sh']")
    (tmp_path / "apps" / "other.toml").write_text("title = 'None'\ncommand = ['no-such-program']")

    assert applications.find("shell", tmp_path).title == "A shell"
    with pytest.raises(Problem, match=r"this image has no no-such-program for .* other: there are shell \(APP\)"):
        applications.find("other", tmp_path)
    with pytest.raises(Problem, match="there is no application 'nonsense': there are shell"):
        applications.find("nonsense", tmp_path)


def test_password_of_a_file_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text("secret12\n")

    assert password.password(file) == "secret12"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("secret12", 0o440, "can be read by others"),
        ("four", 0o400, "holds no password"),
        ("secret12\nsecret13", 0o400, "holds no password"),
        ("", 0o400, "holds no password"),
    ],
)
def test_password_that_is_none_is_refused_and_not_shown(tmp_path: Path, text: str, mode: int, said: str) -> None:
    file = tmp_path / "password"
    file.write_text(text)
    file.chmod(mode)

    with pytest.raises(Problem, match=said) as error:
        password.password(file)

    assert error.value.status == NO_PASSWORD
    assert "secret" not in str(error.value)


def test_password_that_is_made_is_told_on_the_terminal(tmp_path: Path) -> None:
    told = [tmp_path / "one", tmp_path / "two"]

    made = [password.password(None, terminal=one) for one in told]

    assert made[0] != made[1]
    assert [one.read_text() for one in told] == [f"viz-app: the password of this session is {one}\n" for one in made]


def test_nobody_to_tell_a_password_to_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no terminal to tell a password on"):
        password.password(None, terminal=tmp_path)
