"""Tokens: made once, kept as digests, revoked at once."""

from __future__ import annotations

import hashlib
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from slurm_observability.cli import main
from slurm_observability.service import tokens
from slurm_observability.service.tokens import Role, TokenError, Tokens


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs `slurm-observability token` on a file of its own."""
    monkeypatch.setenv("OBSERVABILITY_TOKENS_FILE", str(tmp_path / "tokens.json"))
    # What else is wrong with the service's settings is no matter of tokens.
    monkeypatch.setenv("SCHEDULER_BACKEND", "wrong")
    return lambda *arguments: CliRunner().invoke(main, ["token", *map(str, arguments)])


def mode(path: Path) -> int:
    """A file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.row("O-14.1")
def test_token_is_written_for_its_owner_alone_and_kept_as_a_digest(run: object, tmp_path: Path) -> None:
    result: Result = run("create", "--role", "agent", "--file", tmp_path / "agent.token")

    secret = (tmp_path / "agent.token").read_text().strip()
    kept = (tmp_path / "tokens.json").read_text()
    assert result.exit_code == 0, result.output
    assert (mode(tmp_path / "agent.token"), mode(tmp_path / "tokens.json")) == (0o400, 0o600)
    assert secret not in kept + result.output
    assert json.loads(kept)["tokens"][0]["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert len(secret) > 40
    found = Tokens(tmp_path / "tokens.json").find(secret)
    assert found is not None
    assert (found.name, found.role) == ("agent", Role.AGENT)


def test_existing_token_is_taken(run: object, tmp_path: Path) -> None:
    file = tmp_path / "given"
    file.write_text("made-somewhere-else-by-somebody\n")
    arguments = ("create", "--role", "reader", "--name", "grafana", "--file", file, "--existing")
    result: Result = run(*arguments)

    assert result.exit_code == 0, result.output
    found = Tokens(tmp_path / "tokens.json").find("made-somewhere-else-by-somebody")
    assert found is not None
    assert (found.name, found.role) == ("grafana", Role.READER)


def test_list_and_revoke(run: object, tmp_path: Path) -> None:
    run("create", "--role", "agent", "--file", tmp_path / "a")
    run("create", "--role", "reader", "--name", "page", "--file", tmp_path / "b")
    listed: Result = run("list")
    revoked: Result = run("revoke", "agent")

    assert [line.split("\t")[:2] for line in listed.output.splitlines()] == [["agent", "agent"], ["page", "reader"]]
    assert revoked.exit_code == 0
    assert [token.name for token in Tokens(tmp_path / "tokens.json").all()] == ["page"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--role", "agent", "--file", "{there}"], "is there already"),
        (["create", "--role", "agent", "--file", "/no/such/folder/t"], "cannot be written: No such file"),
        (["create", "--role", "agent", "--name", "a b", "--file", "{new}"], "is no name of a token"),
        (["create", "--role", "agent", "--name", "known", "--file", "{new}"], "there is a token known: revoke it"),
        (["create", "--role", "agent", "--file", "{there}", "--existing"], "a token has at least 20 characters"),
        (["create", "--role", "agent", "--file", "{new}", "--existing"], "cannot be read"),
        (["revoke", "nobody"], "there is no token nobody"),
    ],
)
def test_refusals_say_why_and_leave_nothing(run: object, tmp_path: Path, arguments: list[str], said: str) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    there.write_text("short")
    Tokens(tmp_path / "tokens.json").add("known", Role.AGENT, "x" * 40)
    named = [argument.format(there=there, new=new) for argument in arguments]
    result: Result = run(*named)

    assert result.exit_code == 2, result.output
    assert said in result.output
    assert not new.exists()
    assert there.read_text() == "short"
    assert [token.name for token in Tokens(tmp_path / "tokens.json").all()] == ["known"]


def test_change_of_the_file_counts_at_once(tmp_path: Path) -> None:
    reader, writer = Tokens(tmp_path / "t.json"), Tokens(tmp_path / "t.json")
    assert reader.find("x" * 40) is None

    writer.add("one", Role.READER, "x" * 40)
    assert reader.find("x" * 40) is not None
    writer.revoke("one")
    assert reader.find("x" * 40) is None


def test_many_who_add_at_once_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: Tokens(tmp_path / "t.json").add(f"t{n}", Role.AGENT, f"{n}" * 40), range(8)))

    assert len(Tokens(tmp_path / "t.json").all()) == 8


@pytest.mark.parametrize("text", ["", "[]", '{"tokens": [{}]}', '{"tokens": [], "colour": "red"}'])
def test_file_that_is_none_of_ours_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)

    with pytest.raises(TokenError, match=r"t\.json is no file of tokens: "):
        Tokens(tmp_path / "t.json").all()


def test_every_token_is_another_one() -> None:
    assert len({tokens.new() for _ in range(100)}) == 100
