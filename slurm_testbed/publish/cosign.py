"""Signatures, made and checked by cosign."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm_testbed import engine
from slurm_testbed.children import output_of
from slurm_testbed.errors import PublishError, UsageError, tail
from slurm_testbed.images.builder import ca_bundle

#: By the identity of who publishes (OpenID Connect), as in a workflow, in place of a key.
KEYLESS = "keyless"
# As awskms://…, hashivault://…, k8s://… and pkcs11:…, which has no slashes (https://docs.sigstore.dev/cosign/key_management/).
_IN_A_STORE = re.compile(r"[a-z0-9]+:")


def key_in(folder: Path, key: str) -> str:
    """What is given for a key, with a file's path below a folder.

    Args:
        folder: where a relative path begins.
        key: a file, a URL of a key store, or `keyless`; empty stays empty.

    Example:
        >>> key_in(Path("/home/bob"), "cosign.key"), key_in(Path("/home/bob"), "pkcs11:token=ours")
        ('/home/bob/cosign.key', 'pkcs11:token=ours')
    """
    return str(folder / key) if _is_file(key) else key


def _is_file(key: str) -> bool:
    return key not in ("", KEYLESS) and not _IN_A_STORE.match(key)


@dataclass(frozen=True)
class Signer:
    """Signs with a key, or keyless.

    A signature by a key is written to no public log: a site's own registry is nobody's business.

    Args:
        key: a file of cosign's, whose password is COSIGN_PASSWORD; a URL of a key store; or `keyless`.

    Raises:
        UsageError: there is no such file.
    """

    key: str

    def __post_init__(self) -> None:
        _need(self.key, "make one: cosign generate-key-pair")

    def sign(self, reference: str) -> None:
        """Sign an image in its registry.

        Args:
            reference: the image with its digest.

        Raises:
            PublishError: cosign could not.
        """
        how = [] if self.key == KEYLESS else [f"--key={self.key}", "--tlog-upload=false"]
        _cosign("sign", "--yes", *how, reference)

    def sign_file(self, path: Path, signature: Path) -> None:
        """Sign a file.

        Args:
            path: the file.
            signature: where its signature goes.

        Raises:
            PublishError: cosign could not.
            UsageError: without a key; it would need a certificate besides.
        """
        if self.key == KEYLESS:
            raise UsageError("a file is signed with a key only", hint="make one: cosign generate-key-pair")
        _cosign(
            "sign-blob",
            "--yes",
            f"--key={self.key}",
            "--tlog-upload=false",
            f"--output-signature={signature}",
            str(path),
        )


@dataclass(frozen=True)
class Verifier:
    """Checks signatures by a public key, or by the identity of who signed keyless.

    Args:
        key: the file of the public key, or a URL of a key store; empty for an identity.
        identity: who must have signed: of a workflow its URL.
        issuer: who vouches for the identity.

    Raises:
        UsageError: there is no such file.
    """

    key: str = ""
    identity: str = ""
    issuer: str = ""

    def __post_init__(self) -> None:
        _need(self.key, "give the public key of who signed it, cosign.pub")

    def verify(self, reference: str) -> None:
        """Check the signature of an image in its registry.

        Args:
            reference: the image with its digest.

        Raises:
            PublishError: nobody signed it, or somebody else did.
        """
        if self.key:
            how = [f"--key={self.key}", "--private-infrastructure"]
        else:
            how = [f"--certificate-identity={self.identity}", f"--certificate-oidc-issuer={self.issuer}"]
        _cosign("verify", *how, "--output=text", reference)

    def verify_file(self, path: Path, signature: Path) -> None:
        """Check the signature of a file.

        Args:
            path: the file.
            signature: its signature.

        Raises:
            PublishError: it is not theirs.
            UsageError: without a key.
        """
        if not self.key:
            raise UsageError("a file is verified with a public key only", hint="give it: --key cosign.pub")
        _cosign("verify-blob", f"--key={self.key}", "--private-infrastructure", f"--signature={signature}", str(path))


def _cosign(*arguments: str) -> None:
    program = engine.THIS.which("cosign")
    if not program:
        raise PublishError(
            "cosign, which signs and verifies, is not here",
            hint="install it (Debian 13: apt-get install cosign), or say that there is no signature: --unsigned",
        )
    bundle = ca_bundle(lambda _: None)
    # Its question for a password would wait for ever: without one, it is empty.
    env = {"COSIGN_PASSWORD": "", **os.environ, **({"SSL_CERT_FILE": bundle} if bundle else {})}
    code, text = output_of([program, *arguments], env=env)
    if code:
        raise PublishError(f"cosign {arguments[0]} {arguments[-1]}: {_said(text)}", hint=_hint(arguments))


def _said(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("Error: ")]
    return tail("\n".join(lines[:1]) or text, 3).removeprefix("Error: ")


def _hint(arguments: Sequence[str]) -> str:
    if arguments[0].startswith("verify"):
        return "do not use it, unless you know that somebody else may sign it; then give their key or identity"
    return "the password of a key is COSIGN_PASSWORD"


def _need(key: str, hint: str) -> None:
    """Say that a key is missing before minutes of work, and not after."""
    if _is_file(key) and not Path(key).is_file():
        raise UsageError(f"there is no key {key}", hint=hint)
