"""Streams of bytes that pass through this process, and their digests."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path


class Chunks(io.RawIOBase):
    """Chunks as a file that can be read once.

    Args:
        chunks: what the engine sends.

    Example:
        >>> Chunks(iter([b"ab", b"c"])).read(2)
        b'ab'
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        """It can be read, and nothing else."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill a buffer as far as one chunk goes; 0 at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def digest_of(content: bytes) -> str:
    """The digest of some bytes, as OCI writes it.

    Example:
        >>> digest_of(b"")[:15]
        'sha256:e3b0c442'
    """
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_of_file(path: Path) -> str:
    """The digest of a file, as OCI writes it.

    Args:
        path: the file.
    """
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
