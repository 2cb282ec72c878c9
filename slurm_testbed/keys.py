"""Munge and JWT keys: made, checked, written and told apart by fingerprint, never shown."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slurm_testbed.errors import KeyFileError, SlurmTestbedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

#: What a key is for: `munge` and `hs256` are shared secrets, `rs256` is an RSA private key in PEM.
KeyKind = Literal["munge", "hs256", "rs256"]

MUNGE_KEY_BYTES = 128
MUNGE_KEY_MIN_BYTES = 32
HS256_KEY_BYTES = 32
RS256_KEY_BITS = 2048


def fingerprint(data: bytes) -> str:
    """Name a secret without telling it.

    It is the first 16 hexadecimal digits of the SHA-256, as the images print it; in a shell:
    `sha256sum FILE | cut -c 1-16`.

    Args:
        data: the secret.

    Example:
        >>> fingerprint(bytes(32))
        'SHA256:66687aadf862bd77'
    """
    return "SHA256:" + hashlib.sha256(data).hexdigest()[:16]


def check_munge_key(data: bytes) -> None:
    """Refuse a munge key that munged would refuse.

    There is no upper limit: `mungekey` makes at most 1024 bytes, but munged reads a key of any length.

    Args:
        data: what stands in the key file.

    Raises:
        KeyFileError: it is too short, in munged's own words.

    Example:
        >>> check_munge_key(bytes(31))
        Traceback (most recent call last):
        ...
        slurm_testbed.errors.KeyFileError: Keyfile must be at least 32 bytes (this one has 31)
        Hint: make one with: mungekey --create --keyfile=FILE
    """
    if len(data) < MUNGE_KEY_MIN_BYTES:
        raise KeyFileError(
            f"Keyfile must be at least {MUNGE_KEY_MIN_BYTES} bytes (this one has {len(data)})",
            hint="make one with: mungekey --create --keyfile=FILE",
        )


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Key:
    """A secret that shows its fingerprint in place of itself.

    Attributes:
        kind: what it is for.
        data: the secret: random bytes, or PEM for `rs256`.

    Example:
        >>> Key("munge", bytes(128))
        Key(kind='munge', fingerprint='SHA256:38723a2e5e8a17aa')
        >>> print(Key("hs256", bytes(32)))
        hs256 key SHA256:66687aadf862bd77
        >>> Key.munge() == Key.munge()
        False
    """

    kind: KeyKind
    data: bytes

    @classmethod
    def munge(cls) -> Key:
        """A new munge key of 128 random bytes."""
        return cls("munge", secrets.token_bytes(MUNGE_KEY_BYTES))

    @classmethod
    def hs256(cls) -> Key:
        """A new JWT key of 32 random bytes, for `AuthAltParameters=jwt_key=FILE`."""
        return cls("hs256", secrets.token_bytes(HS256_KEY_BYTES))

    @classmethod
    def rs256(cls) -> Key:
        """A new RSA key of 2048 bits; what Slurm gets is its `jwks_document`.

        Raises:
            SlurmTestbedError: `cryptography` is not installed.
        """
        with _extra("an RS256 key"):
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import rsa
        private = rsa.generate_private_key(public_exponent=65537, key_size=RS256_KEY_BITS)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls("rs256", pem)

    @classmethod
    def from_file(cls, path: str | Path, kind: KeyKind = "munge") -> Key:
        """Read a key and check that the daemons would take it.

        Owner and mode of the file do not matter: it is copied into a cluster, where both are set.

        Args:
            path: the key file.
            kind: what the key is for.

        Raises:
            KeyFileError: there is no such file, it cannot be read, or its content would be refused.
        """
        try:
            key = cls(kind, Path(path).read_bytes())
        except FileNotFoundError:
            raise KeyFileError(
                f'Failed to find keyfile "{path}"', hint="check the path, or leave it out: a key is then made"
            ) from None
        except OSError as error:
            raise KeyFileError(
                f'Failed to read keyfile "{path}": {error.strerror}', hint="let the caller read the file"
            ) from error
        try:
            key.check()
        except KeyFileError as error:
            raise KeyFileError(f"{path}: {error.message}", hint=error.hint) from None
        return key

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the data, which may be printed."""
        return fingerprint(self.data)

    def check(self) -> None:
        """Refuse what the daemons would refuse.

        Raises:
            KeyFileError: the key is too short, empty, or no RSA private key.
            SlurmTestbedError: it is an RS256 key and `cryptography` is not installed.
        """
        if self.kind == "munge":
            check_munge_key(self.data)
        elif self.kind == "rs256":
            _rsa_private_key(self)
        elif not self.data:
            raise KeyFileError("the JWT key is empty", hint=f"write {HS256_KEY_BYTES} random bytes to it")

    def write(self, path: str | Path) -> Path:
        """Write the key with mode 0400; a reader sees the old file or the new one, never a part.

        Args:
            path: the key file; one that is there is replaced.

        Raises:
            KeyFileError: the file cannot be written.

        Example:
            >>> folder = Path(tempfile.mkdtemp())
            >>> path = Key.munge().write(folder / "munge.key")
            >>> oct(path.stat().st_mode & 0o777), path.stat().st_size
            ('0o400', 128)
        """
        path = Path(path)
        try:
            _write_atomically(path, self.data)
        except OSError as error:
            raise KeyFileError(
                f'Failed to write keyfile "{path}": {error.strerror}',
                hint=f"let the caller create files in {path.parent}",
            ) from error
        return path

    # pytest explains a failed comparison of dataclasses field by field, which would print the secret:
    # it does not where a class compares itself.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        return self.kind == other.kind and hmac.compare_digest(self.data, other.data)

    def __hash__(self) -> int:
        return hash((self.kind, self.data))

    def __repr__(self) -> str:
        return f"Key(kind={self.kind!r}, fingerprint={self.fingerprint!r})"

    def __str__(self) -> str:
        return f"{self.kind} key {self.fingerprint}"


@dataclass(frozen=True, slots=True)
class ClusterKeys:
    """The keys that all hosts of one cluster share.

    Attributes:
        munge: the key of munged.
        jwt: the key with which slurmctld and slurmdbd sign and verify tokens.

    Example:
        >>> keys = ClusterKeys.generate()
        >>> len(keys.munge.data), len(keys.jwt.data)
        (128, 32)
    """

    munge: Key
    jwt: Key

    @classmethod
    def generate(cls, *, munge: Key | None = None, jwt: Key | None = None) -> ClusterKeys:
        """Make the keys that are not given.

        Args:
            munge: a munge key to use.
            jwt: a JWT key to use.
        """
        return cls(munge=munge or Key.munge(), jwt=jwt or Key.hs256())


def jwks_document(*keys: Key) -> str:
    """The public halves of RS256 keys, as the JSON for `AuthAltParameters=jwks=FILE`.

    Args:
        keys: RS256 keys; tokens of each of them are accepted.

    Raises:
        KeyFileError: a key is no RSA private key.
        SlurmTestbedError: `cryptography` or `pyjwt` is not installed.

    Example:
        >>> document = json.loads(jwks_document(Key.rs256()))
        >>> sorted(document["keys"][0])
        ['alg', 'e', 'key_ops', 'kid', 'kty', 'n', 'use']
    """
    with _extra("a JWKS document"):
        from jwt.algorithms import RSAAlgorithm
    entries = []
    for key in keys:
        public = RSAAlgorithm.to_jwk(_rsa_private_key(key).public_key(), as_dict=True)
        # Slurm ignores an entry without alg, and takes a token only by its kid.
        entries.append({**public, "alg": "RS256", "use": "sig", "kid": _kid(key)})
    return json.dumps({"keys": entries}, indent=2)


def jwt_token(key: Key, user: str, lifespan_seconds: float, issued_at: float | None = None) -> str:
    """Make a token outside of Slurm, as `scontrol token username=USER lifespan=SECONDS` does inside.

    Args:
        key: the cluster's JWT key; an RS256 key gives a token that its `jwks_document` verifies.
        user: the user's name, for the claim `sun`.
        lifespan_seconds: seconds from issue to expiry; negative for a token that has expired.
        issued_at: Unix time in seconds; now, unless given.

    Raises:
        KeyFileError: the key cannot sign.
        SlurmTestbedError: `pyjwt` is not installed.

    Example:
        >>> import jwt
        >>> token = jwt_token(Key.hs256(), "alice", 1800, issued_at=1_700_000_000)
        >>> jwt.decode(token, options={"verify_signature": False})
        {'exp': 1700001800, 'iat': 1700000000, 'sun': 'alice'}
    """
    with _extra("a JWT"):
        import jwt
    if key.kind == "munge":
        raise KeyFileError("a munge key cannot sign a JWT", hint="use ClusterKeys.jwt")
    iat = int(time.time() if issued_at is None else issued_at)
    claims = {"exp": iat + int(lifespan_seconds), "iat": iat, "sun": user}
    try:
        if key.kind == "rs256":
            return jwt.encode(claims, _rsa_private_key(key), "RS256", headers={"kid": _kid(key)})
        return jwt.encode(claims, key.data, "HS256")
    except jwt.InvalidKeyError as error:
        raise KeyFileError(f"the {key} cannot sign: {error}", hint="use 32 random bytes") from None


def _kid(key: Key) -> str:
    """A name for the public half, made from nothing but the public half."""
    public = _rsa_private_key(key).public_key().public_numbers()
    return fingerprint(f"{public.n}:{public.e}".encode()).removeprefix("SHA256:")


def _rsa_private_key(key: Key) -> RSAPrivateKey:
    with _extra("an RS256 key"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    try:
        private = load_pem_private_key(key.data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, RSAPrivateKey):
        raise KeyFileError(
            f"the {key} is no RSA private key in PEM without a password",
            hint="make one with: openssl genpkey -algorithm RSA -out FILE",
        )
    return private


@contextmanager
def _extra(what: str) -> Iterator[None]:
    """Say which extra is missing where an import fails."""
    try:
        yield
    except ImportError as error:
        raise SlurmTestbedError(
            f"{what} needs the Python package {error.name}, which is not installed",
            hint="run: pip install 'slurm-testbed[jwt]'",
        ) from None


def _write_atomically(path: Path, data: bytes) -> None:
    # mkstemp opens with O_CREAT | O_EXCL and mode 0600; fchmod makes the umask irrelevant.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o400)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
