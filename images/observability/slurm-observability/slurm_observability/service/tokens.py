"""API tokens: made once, kept as digests only, known by name and role."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import filelock
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

#: Begins every token, so that one that got into a log or a repository is noticed by those who search for such.
PREFIX = "slurmobs_"
#: A file with less is no token; it is refused.
SHORTEST = 20
_LOCK_SECONDS = 10


class Role(StrEnum):
    """What a token is good for."""

    AGENT = "agent"
    READER = "reader"
    ADMIN = "admin"

    def may(self, needed: Role) -> bool:
        """Whether this role may do what another one is for.

        Example:
            >>> Role.ADMIN.may(Role.READER), Role.READER.may(Role.AGENT)
            (True, False)
        """
        return self in {needed, Role.ADMIN}


class TokenError(Exception):
    """A token or the file of digests cannot be used; the text says why."""


class Token(BaseModel):
    """What is kept of a token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    role: Role
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: AwareDatetime


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tokens: list[Token] = []


def digest(token: str) -> str:
    """What is kept of a token: it has 256 random bits, so that a plain digest cannot be guessed."""
    return hashlib.sha256(token.encode()).hexdigest()


def new() -> str:
    """A token that nobody has yet."""
    return PREFIX + secrets.token_urlsafe(32)


class Tokens:
    """The tokens of a file of digests; a change of the file counts at once.

    Args:
        path: the file; there need not be one yet.

    Example:
        >>> import pathlib, tempfile
        >>> tokens = Tokens(pathlib.Path(tempfile.mkdtemp()) / "tokens.json")
        >>> secret = new()
        >>> tokens.add("grafana", Role.READER, secret)
        >>> tokens.find(secret).name
        'grafana'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._tokens: list[Token] = []

    def all(self) -> list[Token]:
        """The tokens.

        Raises:
            TokenError: the file cannot be read, or is none of ours.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TokenError(f"{self.path} cannot be read: {error.strerror}") from error
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            if stamp != self._stamp:
                try:
                    self._tokens = _File.model_validate_json(self.path.read_bytes()).tokens
                except OSError as error:
                    raise TokenError(f"{self.path} cannot be read: {error.strerror}") from error
                except ValidationError as error:
                    first = error.errors(include_url=False, include_input=False)[0]
                    where = ".".join(str(part) for part in first["loc"])
                    raise TokenError(f"{self.path} is no file of tokens: {where} {first['msg']}".strip()) from None
                self._stamp = stamp
            return list(self._tokens)

    def find(self, secret: str) -> Token | None:
        """The token that this is, if it is one; takes as long for one that is nearly right."""
        given = digest(secret)
        found = None
        for token in self.all():
            if hmac.compare_digest(token.sha256, given):
                found = token
        return found

    def add(self, name: str, role: Role, secret: str) -> None:
        """Take a token for known.

        Args:
            name: whose it is; the audit names it.
            role: what it is good for.
            secret: the token, of which a digest is kept.

        Raises:
            TokenError: there is one of this name, it is too short, or the name is none.
        """
        if len(secret) < SHORTEST:
            raise TokenError(f"a token has at least {SHORTEST} characters")
        try:
            new = Token(name=name, role=role, sha256=digest(secret), created=datetime.now(UTC))
        except ValidationError:
            raise TokenError(f"{name!r} is no name of a token: 1 to 64 of A-Z a-z 0-9 . _ -") from None
        with self._changing() as tokens:
            if any(token.name == name for token in tokens):
                raise TokenError(f"there is a token {name}: revoke it, or give another name")
            tokens.append(new)

    def revoke(self, name: str) -> None:
        """Take a token back; its next request is refused.

        Raises:
            TokenError: there is none of this name.
        """
        with self._changing() as tokens:
            left = [token for token in tokens if token.name != name]
            if len(left) == len(tokens):
                raise TokenError(f"there is no token {name}")
            tokens[:] = left

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS):
                tokens = self.all()
                yield tokens
                text = _File(tokens=tokens).model_dump_json(indent=2) + "\n"
                _replace(self.path, text, 0o600)
        except filelock.Timeout:
            raise TokenError(f"another process holds {self.path}.lock") from None
        except OSError as error:
            raise TokenError(f"{self.path} cannot be written: {error.strerror}") from error


def write_secret(path: Path, secret: str) -> None:
    """Write a token to a file that only its owner may read.

    Raises:
        TokenError: the file is there, or cannot be written.
    """
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    except FileExistsError:
        raise TokenError(f"{path} is there already: remove it, or give another file") from None
    except OSError as error:
        raise TokenError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(number, "w") as file:
        file.write(secret + "\n")


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file so that a reader finds the old or the new one, with the owner of its folder."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "w") as file:
            os.fchmod(number, mode)
            folder = path.parent.stat()
            if os.geteuid() == 0:
                # `token create` by root, and the service that reads the file as somebody else.
                os.fchown(number, folder.st_uid, folder.st_gid)
            file.write(text)
            file.flush()
            os.fsync(number)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
