"""Images go to a real registry whole, signed, with bill of materials and source; or no tag of them is there."""

from __future__ import annotations

import json
import re
import subprocess
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import docker
import pytest

from fixtures.made import MakeImages
from fixtures.registry import RegistryUnderTest, serving
from fixtures.registry.line import line_to
from fixtures.tasks import Invoke
from slurm_testbed import engine
from slurm_testbed.container.life import check_image
from slurm_testbed.errors import EngineError, PublishError
from slurm_testbed.images import exists, image_name
from slurm_testbed.publish import oci, push, tags_of, verify
from slurm_testbed.publish.registry import Registry
from slurm_testbed.releases import Release, Releases
from tests.publish.conftest import Pushing, Signing

INDEX = "application/vnd.oci.image.index.v1+json"
#: Images of ours on the way to the registry, in the order in which they get their tags.
REPOSITORIES = ("slurm-source", "slurm-client")


def immutable(release: Release) -> str:
    """The tag of the image's build that never moves."""
    return tags_of(release, version("slurm-testbed"), releases=Releases.load(), today=date(2026, 11, 22)).immutable


def quiet(_: str) -> None:
    """Say nothing."""


def no_tags(registry: RegistryUnderTest, folder: str) -> bool:
    return not any(registry.tags(f"{folder}/{name}") for name in REPOSITORIES)


# --- the whole way ---------------------------------------------------------------------------------------


@pytest.mark.row("U-06.1", "U-06.2", "U-06.3")
def test_image_is_pushed_pulled_run_and_verified(
    client: docker.DockerClient, registry: RegistryUnderTest, signing: Signing, keys: Path, invoke: Invoke,
    slurm_release: Release, make_images: MakeImages, tmp_path: Path,
) -> None:  # fmt: skip
    name = image_name("slurm-single-node", slurm_release)
    if exists(client, name) and client.images.get(name).labels["org.slurm-testbed.source"].startswith("packages"):
        pytest.skip(f"not checkable here because Slurm {slurm_release} comes from packages, which are not published")
    # Both at once, for the one must be the other's source; what was compiled is in the build's cache.
    make_images(slurm_release, "slurm-single-node", "slurm-source")
    address, pages = f"{registry.host}/whole", tmp_path / "pages"
    image = f"{address}/slurm-single-node:{immutable(slurm_release)}"
    arguments = ["--release", slurm_release.minor, "--image", "slurm-single-node", "--pages", str(pages)]

    pushed = invoke(
        "push", "--registry", address, *arguments, "--unpublishable", "--key", str(keys / "ours/cosign.key")
    )
    assert pushed.returncode == 0, pushed.stderr
    pulled = subprocess.run(
        ["docker", "pull", image], env=engine.environment(), capture_output=True, text=True, check=False
    )
    assert pulled.returncode == 0, pulled.stderr
    try:
        job = subprocess.run(
            ["docker", "run", "--rm", image, "srun", "printenv", "SLURM_JOB_ID", "SLURM_JOB_PARTITION"],
            env=engine.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        verified = invoke("verify", image, "--unpublishable", "--key", str(keys / "ours/cosign.pub"))
    finally:
        # Its content is that of an image in which other tests' containers run.
        client.images.remove(image, noprune=True, force=True)

    assert job.stdout.split() == ["1", "debug"], job.stdout + job.stderr
    assert verified.returncode == 0, verified.stdout + verified.stderr
    digest = registry.digest("whole/slurm-single-node", immutable(slurm_release))
    assert verified.stdout.strip() == f"{address}/slurm-single-node@{digest}"
    for said in ("signed by whom you named", "whole", "the source of its Slurm is", "the engine has this very image"):
        assert said in verified.stderr
    (page,) = pages.glob("slurm-single-node-*.md")
    text = page.read_text()
    assert re.search(r"^\| munge \| \S+ \| \S.* \| munge ", text, re.MULTILINE), text
    assert f"| slurm | {slurm_release} | GPL-2.0-or-later |" in text


@pytest.mark.row("U-06.1")
def test_index_has_the_image_its_bill_of_materials_and_names_its_source(
    registry: RegistryUnderTest, pushing: Pushing, slurm_release: Release
) -> None:
    pushing(f"{registry.host}/parts")

    index = registry.get(f"parts/slurm-client/manifests/{immutable(slurm_release)}", INDEX).json()
    image, bill = index["manifests"]
    manifest = registry.get(f"parts/slurm-client/manifests/{bill['digest']}", bill["mediaType"]).json()
    statement = registry.get(f"parts/slurm-client/blobs/{manifest['layers'][0]['digest']}").json()
    packages = {package["name"]: package for package in statement["predicate"]["packages"]}
    source = index["annotations"]["org.slurm-testbed.source-image"]

    assert image["platform"]["os"] == "linux"
    assert statement["subject"][0]["digest"]["sha256"] == image["digest"].removeprefix("sha256:")
    assert statement["predicate"]["spdxVersion"] == "SPDX-2.3"
    assert packages["moon-buggy"]["licenseDeclared"] == "GPL-2.0-or-later"
    assert packages["moon-buggy"]["sourceInfo"] == "built from moon-buggy 1:1.0.51-14"
    assert packages["moon-buggy"]["externalRefs"][0]["referenceLocator"].startswith(
        "pkg:deb/debian/moon-buggy@1:1.0.51-14"
    )
    assert packages["slurm"]["versionInfo"] == slurm_release.version
    assert source == f"slurm-source@{registry.digest('parts/slurm-source', immutable(slurm_release))}"


@pytest.mark.row("U-06.1")
def test_all_tags_of_an_image_are_one_image(registry: RegistryUnderTest, pushing: Pushing) -> None:
    pushed = pushing(f"{registry.host}/tags")

    for one in pushed:
        name = one.reference.partition("/")[2]
        assert registry.tags(name) == set(one.tags)
        assert {registry.digest(name, tag) for tag in one.tags} == {one.digest}


def test_buildx_shows_the_bill_of_materials(
    registry: RegistryUnderTest, pushing: Pushing, slurm_release: Release
) -> None:
    pushing(f"{registry.host}/buildx")
    raw = registry.get(f"buildx/slurm-client/manifests/{immutable(slurm_release)}", INDEX).json()

    # How BuildKit marks what `docker buildx imagetools inspect` takes for a bill of materials.
    assert raw["manifests"][1]["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": raw["manifests"][0]["digest"],
    }


# --- tags ------------------------------------------------------------------------------------------------


def test_second_push_of_the_same_image_changes_nothing(
    registry: RegistryUnderTest, pushing: Pushing, signing: Signing
) -> None:
    first = pushing(f"{registry.host}/twice", signer=signing.ours)

    second = pushing(f"{registry.host}/twice", signer=signing.ours)

    assert [one.digest for one in second] == [one.digest for one in first]


def test_tag_of_a_build_is_never_given_to_another_image(
    registry: RegistryUnderTest, pushing: Pushing, slurm_release: Release
) -> None:
    address = f"{registry.host}/never"
    first = pushing(address)

    with pytest.raises(PublishError, match="is published already, with another content") as error:
        pushing(address, kind="other")

    assert "--rebuilt" in error.value.hint
    for one in first:
        name = one.reference.partition("/")[2]
        assert {registry.digest(name, tag) for tag in one.tags} == {one.digest}


def test_rebuilt_image_moves_the_tags_that_move(registry: RegistryUnderTest, pushing: Pushing) -> None:
    address = f"{registry.host}/rebuilt"
    first = pushing(address)

    second = pushing(address, kind="other", rebuilt="20261122")

    for old, new in zip(first, second, strict=True):
        name = old.reference.partition("/")[2]
        assert registry.digest(name, old.tags[0]) == old.digest
        assert {registry.digest(name, tag) for tag in new.tags} == {new.digest} != {old.digest}
        assert new.tags[0].endswith("-20261122")


@pytest.mark.deep
def test_image_of_another_platform_joins_the_one_that_is_there(
    registry: RegistryUnderTest, pushing: Pushing, signing: Signing
) -> None:
    address = f"{registry.host}/platforms"
    pushing(address, signer=signing.ours)

    _, both = pushing(address, kind="foreign", signer=signing.ours)
    _, again = pushing(address, signer=signing.ours)

    assert len(both.platforms) == 2
    assert "linux/s390x" in both.platforms
    assert again.digest == both.digest, "who came last decides"
    found = verify(f"{both.reference}:{both.tags[0]}", signing.by_us, say=quiet)
    assert found.platforms == both.platforms


def test_moving_tag_never_loses_a_platform(registry: RegistryUnderTest, pushing: Pushing) -> None:
    """A machine for each platform pushes; in between, those of the other one pull what was there before."""
    address, repository = f"{registry.host}/loses", "loses/slurm-client"
    pushing(address)
    _, both = pushing(address, kind="foreign")

    _, first = pushing(address, rebuilt="2")
    moving = both.tags[1]
    assert registry.digest(repository, moving) == both.digest
    assert first.tags == (f"{both.tags[0]}-2",)
    _, second = pushing(address, kind="foreign", rebuilt="2")

    assert registry.digest(repository, moving) == second.digest
    assert set(both.platforms) == set(second.platforms)


def test_release_is_pulled_by_its_name_also_after_its_support(
    registry: RegistryUnderTest, pushing: Pushing, slurm_release: Release
) -> None:
    _, pushed = pushing(f"{registry.host}/pulled")
    if f"{slurm_release}-eol" not in pushed.tags:
        pytest.skip(f"not checkable here because SchedMD supports Slurm {slurm_release}")
    name = image_name("slurm-client", slurm_release, f"{registry.host}/pulled")
    client = engine.connect()
    try:
        check_image(client, name)
        assert exists(client, name)
    finally:
        for tag in (name, f"{name}-eol"):
            if exists(client, tag):
                client.images.remove(tag, noprune=True)
    with pytest.raises(EngineError, match=f"there is no image {name}x in its registry, nor {name}x-eol"):
        check_image(client, f"{name}x")


# --- what must not go ------------------------------------------------------------------------------------


def test_image_on_a_bootstrapped_base_is_refused(
    client: docker.DockerClient, registry: RegistryUnderTest, slurm_release: Release, tmp_path: Path
) -> None:
    labels = client.images.get(image_name("slurm-client", slurm_release)).labels
    if "org.slurm-testbed.base" not in labels:
        pytest.skip("not checkable here because the base of the images is a registry's")

    with pytest.raises(PublishError, match="stands on a base that was bootstrapped"):
        push(f"{registry.host}/base", ["slurm-client"], [slurm_release], signer=None, pages=tmp_path, say=quiet)

    assert no_tags(registry, "base")


def test_image_without_its_source_is_refused(
    client: docker.DockerClient, registry: RegistryUnderTest, pushing: Pushing, small: str, slurm_release: Release
) -> None:
    source, kept = f"{small}/alone/slurm-source:{slurm_release}", f"{small}/alone/slurm-client:{slurm_release}"
    client.images.get(f"{small}/small/slurm-client:{slurm_release}").tag(kept)
    try:
        with pytest.raises(PublishError, match=f"there is no {re.escape(source)}") as error:
            pushing(f"{registry.host}/alone", kind="alone")
    finally:
        client.images.remove(kept, noprune=True)

    assert "--image slurm-source" in error.value.hint
    assert no_tags(registry, "alone")


def test_source_of_another_build_is_refused(
    client: docker.DockerClient, registry: RegistryUnderTest, pushing: Pushing, small: str, slurm_release: Release
) -> None:
    prefix = f"{small}/mixed"
    client.images.get(f"{small}/small/slurm-client:{slurm_release}").tag(f"{prefix}/slurm-client:{slurm_release}")
    container = client.containers.create(f"{small}/small/slurm-source:{slurm_release}", ["none"])
    change = "LABEL org.opencontainers.image.revision=fedcba9876543210"
    container.commit(f"{prefix}/slurm-source", str(slurm_release), changes=change)
    container.remove()
    try:
        with pytest.raises(PublishError, match="is not the source of .*revision is 0123456789abcdef"):
            pushing(f"{registry.host}/mixed", kind="mixed")
    finally:
        for name in REPOSITORIES:
            client.images.remove(f"{prefix}/{name}:{slurm_release}", noprune=True)

    assert no_tags(registry, "mixed")


def test_dry_run_makes_the_pages_and_sends_nothing(
    registry: RegistryUnderTest, pushing: Pushing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))

    pushed = pushing(f"{registry.host}/dry", dry_run=True)

    assert no_tags(registry, "dry")
    assert all(one.page.read_text().startswith(f"# {one.reference}\n") for one in pushed)
    bills = [json.loads(one.page.with_suffix(".spdx.json").read_text()) for one in pushed]
    assert [bill["name"] for bill in bills] == ["slurm-source", "slurm-client"]


# --- what goes wrong on the way --------------------------------------------------------------------------


def test_connection_that_breaks_half_way_is_begun_again(
    registry: RegistryUnderTest, pushing: Pushing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with line_to(registry.host) as line:
        registry.log_in(monkeypatch, tmp_path / "docker", host=line.address)
        line.breaks = 3

        pushed = pushing(f"{line.address}/broken")

        assert line.broken == 3
        for one in pushed:
            verify(f"{one.reference}:{one.tags[0]}", None, say=quiet)


@pytest.mark.deep
def test_connection_that_always_breaks_leaves_no_tag(
    registry: RegistryUnderTest, pushing: Pushing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with line_to(registry.host) as line:
        registry.log_in(monkeypatch, tmp_path / "docker", host=line.address)
        line.breaks = 1_000

        with pytest.raises(PublishError, match=r"tried 6 times") as error:
            pushing(f"{line.address}/always")

        assert line.address in error.value.message
        assert no_tags(registry, "always")
        line.breaks = 0
        pushing(f"{line.address}/always")
    assert not no_tags(registry, "always")


def test_failure_between_two_images_leaves_no_tag_of_either(
    registry: RegistryUnderTest, pushing: Pushing, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Registry.upload

    def fail(self: Registry, repository: str, blob: object) -> None:
        if repository == "slurm-client":
            raise PublishError("the line is dead")
        upload(self, repository, blob)  # type: ignore[arg-type]

    monkeypatch.setattr(Registry, "upload", fail)

    with pytest.raises(PublishError, match="the line is dead"):
        pushing(f"{registry.host}/between")

    assert no_tags(registry, "between")


@pytest.mark.parametrize("password", ["wrong-horse", ""])
def test_wrong_password_is_said_at_once_and_never_shown(
    registry: RegistryUnderTest, pushing: Pushing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, password: str
) -> None:
    registry.log_in(monkeypatch, tmp_path / "docker", password=password)
    started = time.monotonic()

    with pytest.raises(PublishError, match="does not let in tester") as error:
        pushing(f"{registry.host}/wrong")

    assert time.monotonic() - started < 30
    assert "docker login" in error.value.hint
    assert "wrong-horse" not in str(error.value)
    assert no_tags(registry, "wrong")


def test_registry_that_wants_tokens_gets_one_for_each_thing(
    client: docker.DockerClient, small: str, pushing: Pushing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving(client, tmp_path, tokens=True) as registry:
        registry.log_in(monkeypatch, tmp_path / "docker")

        pushed = pushing(f"{registry.host}/tokens")

        for one in pushed:
            verify(f"{one.reference}:{one.tags[0]}", None, say=quiet)
        registry.log_in(monkeypatch, tmp_path / "docker", password="wrong-horse")
        with pytest.raises(PublishError, match="does not let in tester") as error:
            pushing(f"{registry.host}/tokens")
        assert "wrong-horse" not in str(error.value)


def test_without_a_password_the_answer_is_how_to_give_one(
    registry: RegistryUnderTest, pushing: Pushing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))

    with pytest.raises(PublishError, match="does not let in anybody without a password") as error:
        pushing(f"{registry.host}/nobody")

    assert error.value.hint == f"log in: docker login {registry.host}"


def test_registry_that_knows_no_such_place_is_no_success(registry: RegistryUnderTest) -> None:
    there = Registry(f"{registry.host}/nowhere")

    with pytest.raises(PublishError, match="the registry answered 404"):
        there.put("slurm-client", "no/tag", oci.index([], {}))
    assert there.get("slurm-client", "none") is None


def test_certificate_of_a_stranger_is_not_trusted(
    registry: RegistryUnderTest, pushing: Pushing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")

    with pytest.raises(PublishError, match="CERTIFICATE_VERIFY_FAILED") as error:
        pushing(f"{registry.host}/stranger")

    assert "SSL_CERT_FILE" in error.value.hint


@pytest.mark.deep
def test_full_disk_leaves_the_tags_where_they_were(
    client: docker.DockerClient, small: str, pushing: Pushing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Room for the two images of the first push, and not for two more.
    with serving(client, tmp_path, storage={"/registry": "size=8m"}) as registry:
        registry.log_in(monkeypatch, tmp_path / "docker")
        first = pushing(f"{registry.host}/full")

        with pytest.raises(PublishError, match="the registry answered 500") as error:
            pushing(f"{registry.host}/full", kind="other", rebuilt="20261122")

        assert "full" in error.value.hint
        for one in first:
            name = one.reference.partition("/")[2]
            assert registry.tags(name) == set(one.tags)
            assert {registry.digest(name, tag) for tag in one.tags} == {one.digest}
            verify(f"{one.reference}:{one.tags[0]}", None, say=quiet)


def test_task_says_who_may_sign(invoke: Invoke) -> None:
    done = invoke("push", "--registry", "127.0.0.1:1")

    assert done.returncode == 2, done.stderr
    assert "--key FILE" in done.stderr
    assert "Traceback" not in done.stderr
