"""Verification finds what is not signed, not whole, or not what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from fixtures.registry import RegistryUnderTest
from slurm_testbed.errors import PublishError
from slurm_testbed.publish import Published, Signer, verify
from slurm_testbed.releases import Release
from tests.publish.conftest import Pushing, Signing
from tests.publish.test_push import INDEX, quiet


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """A folder of the registry for this test alone."""
    return "".join(letter for letter in request.node.name if letter.isalnum()).lower()


@pytest.fixture
def published(registry: RegistryUnderTest, pushing: Pushing, signing: Signing, folder: str) -> Published:
    """A signed image."""
    return pushing(f"{registry.host}/{folder}", signer=signing.ours)[-1]


def image_of(published: Published) -> str:
    return f"{published.reference}:{published.tags[0]}"


def blob_path(digest: str) -> str:
    """Where the registry keeps a blob."""
    hexadecimal = digest.removeprefix("sha256:")
    return f"/registry/docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"


@pytest.fixture
def layer(registry: RegistryUnderTest, published: Published, folder: str) -> str:
    """The digest of the image's layer."""
    name = f"{folder}/slurm-client"
    index = registry.get(f"{name}/manifests/{published.digest}", INDEX).json()
    found = index["manifests"][0]
    manifest = registry.get(f"{name}/manifests/{found['digest']}", found["mediaType"]).json()
    return str(manifest["layers"][0]["digest"])


@pytest.mark.row("U-06.3")
def test_signed_image_is_verified(published: Published, signing: Signing) -> None:
    said: list[str] = []

    found = verify(image_of(published), signing.by_us, say=said.append)

    assert found.reference == f"{published.reference}@{published.digest}"
    assert found.packages == 2
    assert "signed by whom you named" in said


@pytest.mark.row("U-06.3")
def test_image_signed_by_another_is_not_verified(published: Published, signing: Signing) -> None:
    with pytest.raises(PublishError, match="cosign verify"):
        verify(image_of(published), signing.by_them, say=quiet)


@dataclass(frozen=True)
class SignsAllBut(Signer):
    """Forgets to sign one image."""

    forgotten: str = ""

    def sign(self, reference: str) -> None:
        """Sign it, unless it is forgotten."""
        if f"/{self.forgotten}@" not in reference:
            super().sign(reference)


@pytest.mark.row("U-06.3")
@pytest.mark.parametrize("forgotten", ["slurm-client", "slurm-source"])
def test_image_is_not_verified_if_nobody_signed_it_or_its_source(
    registry: RegistryUnderTest, pushing: Pushing, signing: Signing, folder: str, forgotten: str
) -> None:
    published = pushing(f"{registry.host}/{folder}", signer=SignsAllBut(signing.ours.key, forgotten))[-1]

    with pytest.raises(PublishError, match=f"cosign verify .*/{forgotten}@.*no signatures found"):
        verify(image_of(published), signing.by_us, say=quiet)

    verify(image_of(published), None, say=quiet)


@pytest.mark.row("U-06.3")
@pytest.mark.parametrize(
    "damage", ["dd if=/dev/zero of={0} bs=1 seek=100 count=20 conv=notrunc", "truncate -s 1000 {0}"]
)
def test_damaged_layer_is_found(
    client: docker.DockerClient, small: str, pushing: Pushing, signing: Signing, registry: RegistryUnderTest,
    published: Published, layer: str, damage: str, folder: str,
) -> None:  # fmt: skip
    path = blob_path(layer)
    code, _ = registry.container.exec_run(["cp", path, "/tmp/kept"])
    assert code == 0
    try:
        code, said = registry.container.exec_run(["sh", "-c", damage.format(path)])
        assert code == 0, said

        with pytest.raises(PublishError, match=layer):
            verify(image_of(published), signing.by_us, say=quiet)
    finally:
        registry.container.exec_run(["cp", "/tmp/kept", path])


@pytest.mark.row("U-06.3")
def test_engines_copy_of_the_same_name_must_be_that_image(
    client: docker.DockerClient, published: Published, signing: Signing, small: str, slurm_release: Release
) -> None:
    image = image_of(published)
    client.images.get(f"{small}/other/slurm-client:{slurm_release}").tag(image)
    try:
        with pytest.raises(PublishError, match="the engine's .* is another one"):
            verify(image, signing.by_us, say=quiet)
    finally:
        client.images.remove(image, noprune=True)


def test_tag_that_is_not_there_is_one_message(registry: RegistryUnderTest) -> None:
    with pytest.raises(PublishError, match=f"there is no {registry.host}/nothing/slurm-client:1 in {registry.host}"):
        verify(f"{registry.host}/nothing/slurm-client:1", None, say=quiet)


def test_missing_cosign_is_said(
    published: Published, signing: Signing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("slurm_testbed.engine.machine.Machine.path", str(tmp_path))

    with pytest.raises(PublishError, match="cosign, which signs and verifies, is not here") as error:
        verify(image_of(published), signing.by_us, say=quiet)

    assert "apt-get install cosign" in error.value.hint
