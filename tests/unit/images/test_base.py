"""Images: the base."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from slurm_testbed import engine, images
from slurm_testbed.engine import Machine
from slurm_testbed.errors import BuildError
from tests.unit.images.conftest import FakeClient, FakeImage


def choose(client: FakeClient, said: list[str], asked: str | None = None) -> str:
    """The base that is chosen on this engine."""
    return images.choose_base(client, asked, say=said.append)  # type: ignore[arg-type]


def test_asked_base_is_taken(client: FakeClient, said: list[str]) -> None:
    assert choose(client, said, "debian:sid-slim") == "debian:sid-slim"
    assert said == ["base: debian:sid-slim, as asked"]


def test_base_of_the_registry_is_taken_where_it_answers(
    client: FakeClient, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "registry_answers", lambda _, image: image == "debian:trixie-slim")

    assert choose(client, said) == "debian:trixie-slim"
    assert said == ["base: debian:trixie-slim from its registry"]


def test_base_that_is_here_needs_no_registry(client: FakeClient, said: list[str]) -> None:
    client.known["debian:trixie-slim"] = FakeImage()

    assert choose(client, said) == "debian:trixie-slim"


@pytest.fixture
def mmdebstrap(program: Callable[[str, str], Path], tmp_path: Path) -> Path:
    """An mmdebstrap that notes its arguments and writes a file; the path of its notes."""
    notes = tmp_path / "mmdebstrap.txt"
    program("mmdebstrap", f'echo "$@" > {notes}; for last; do :; done; echo tar > "$last"')
    return notes


def test_base_is_bootstrapped_where_no_registry_answers(client: FakeClient, said: list[str], mmdebstrap: Path) -> None:
    assert choose(client, said) == images.BOOTSTRAP_BASE

    assert client.known[images.BOOTSTRAP_BASE].content == b"tar\nLABEL org.slurm-testbed.base=trixie"
    assert "because no registry answers" in said[0]
    assert "://" not in mmdebstrap.read_text(), "a mirror's address was written"


def test_fresh_bootstrapped_base_is_taken_again(client: FakeClient, said: list[str], mmdebstrap: Path) -> None:
    client.known[images.BOOTSTRAP_BASE] = FakeImage(created=datetime.now(UTC) - timedelta(days=29))

    assert choose(client, said) == images.BOOTSTRAP_BASE
    assert not mmdebstrap.exists(), "it was bootstrapped again"


@pytest.mark.parametrize(("days", "asked"), [(31, None), (1, "bootstrap")])
def test_bootstrapped_base_is_made_again_when_old_or_asked(
    client: FakeClient, said: list[str], mmdebstrap: Path, days: int, asked: str | None
) -> None:
    client.known[images.BOOTSTRAP_BASE] = FakeImage(created=datetime.now(UTC) - timedelta(days=days))

    assert choose(client, said, asked) == images.BOOTSTRAP_BASE
    assert mmdebstrap.exists(), "it was not bootstrapped again"


def test_base_of_packages_is_bootstrapped_of_their_suite_alone(
    client: FakeClient, said: list[str], mmdebstrap: Path
) -> None:
    base = images.choose_base(client, suite="bullseye", say=said.append)  # type: ignore[arg-type]

    assert base == "slurm-testbed/base-bootstrap:bullseye"
    assert client.known[base].content == b"tar\nLABEL org.slurm-testbed.base=bullseye"
    asked = mmdebstrap.read_text()
    assert "Check-Valid-Until" in asked
    assert "(updates|security)" in asked


def test_missing_mmdebstrap_says_how_to_get_it(
    client: FakeClient, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "THIS", Machine(environ={"PATH": str(tmp_path)}))

    with pytest.raises(BuildError, match="mmdebstrap, which would bootstrap the base, is not here") as error:
        choose(client, said)

    assert "apt-get install mmdebstrap" in error.value.hint


def test_failing_mmdebstrap_is_quoted(client: FakeClient, said: list[str], program: Callable[[str, str], Path]) -> None:
    program("mmdebstrap", "echo 'E: no such suite' >&2; exit 25")

    with pytest.raises(BuildError, match="could not bootstrap Debian trixie; its last lines:\nE: no such suite"):
        choose(client, said)


@pytest.mark.usefixtures("mmdebstrap")
def test_failing_import_is_told(client: FakeClient, said: list[str]) -> None:
    client.answer = '{"error":"no space"}'

    with pytest.raises(BuildError, match=r"did not import the base: .*no space"):
        choose(client, said)


@pytest.mark.usefixtures("mmdebstrap")
def test_base_is_not_bootstrapped_for_another_architecture(client: FakeClient, said: list[str]) -> None:
    client.machine = "pdp11"

    with pytest.raises(BuildError, match="does not run on the engine's pdp11"):
        choose(client, said)
