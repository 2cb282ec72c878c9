"""What must not be published, and where it may go all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_testbed.errors import PublishError, UsageError
from slurm_testbed.publish import Signer, Verifier, key_in, push
from slurm_testbed.publish.refusals import is_of_this_machine, refuse_unpublishable, why_unpublishable

GOOD = {
    "org.slurm-testbed.interface": "1",
    "org.opencontainers.image.base.name": "debian:trixie-slim",
    "org.opencontainers.image.revision": "0123456789abcdef",
}


def test_image_from_committed_files_on_a_registrys_base_may_go() -> None:
    assert why_unpublishable(GOOD) == []


@pytest.mark.parametrize(
    ("label", "value", "reason"),
    [
        ("org.slurm-testbed.base", "trixie", "bootstrapped"),
        ("org.opencontainers.image.base.name", "slurm-testbed/base-bootstrap:sid", "bootstrapped"),
        ("org.opencontainers.image.revision", "0123456789abcdef-dirty", "not committed"),
    ],
)
def test_one_label_is_enough_to_refuse(label: str, value: str, reason: str) -> None:
    with pytest.raises(PublishError, match=reason) as error:
        refuse_unpublishable("x", GOOD | {label: value})

    assert "invoke build" in error.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:5000", "localhost:5000", "[::1]:5000"])
def test_registry_of_this_machine(host: str) -> None:
    assert is_of_this_machine(host)


@pytest.mark.parametrize("host", ["ghcr.io", "127.0.0.1.example.org", "localhost.example.org:5000", "10.0.0.1:5000"])
def test_registry_of_others(host: str) -> None:
    assert not is_of_this_machine(host)


def test_what_must_not_be_published_goes_to_no_other_machine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"do not go to ghcr\.io"):
        push("ghcr.io/me", signer=None, pages=tmp_path, unpublishable=True)


@pytest.mark.parametrize("address", ["", "slurm", "slurm/testbed"])
def test_address_without_a_registry_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no registry"):
        push(address, signer=None, pages=tmp_path)


@pytest.mark.parametrize(("kind", "hint"), [(Signer, "generate-key-pair"), (Verifier, "public key")])
def test_key_that_is_not_there_is_told_before_anything_is_done(
    tmp_path: Path, kind: type[Signer] | type[Verifier], hint: str
) -> None:
    with pytest.raises(UsageError, match=f"there is no key {tmp_path}/cosign") as error:
        kind(f"{tmp_path}/cosign.key")

    assert hint in error.value.hint


@pytest.mark.parametrize("key", ["awskms:///alias/ours", "k8s://default/ours", "pkcs11:token=ours;slot-id=0"])
@pytest.mark.parametrize("kind", [Signer, Verifier])
def test_key_of_a_key_store_is_no_file(tmp_path: Path, kind: type[Signer] | type[Verifier], key: str) -> None:
    assert kind(key_in(tmp_path, key)).key == key


def test_path_of_a_key_begins_where_its_caller_is(tmp_path: Path) -> None:
    (tmp_path / "cosign.pub").touch()

    assert Verifier(key_in(tmp_path, "cosign.pub")).key == f"{tmp_path}/cosign.pub"
    assert Signer(key_in(tmp_path, "keyless")).key == "keyless"
    assert Verifier(key_in(tmp_path, ""), identity="us", issuer="them").key == ""
