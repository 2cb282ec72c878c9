"""What is to be published: which images of the engine, with which source, under which tags."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import docker

from slurm_testbed.errors import PublishError, UsageError
from slurm_testbed.images import WITHOUT_RELEASE, Say, exists, image_name, targets
from slurm_testbed.publish.refusals import SOURCE, refuse_unpublishable, why_not_its_source
from slurm_testbed.publish.tags import Tags, tags_of
from slurm_testbed.releases import Release, Releases

#: The image with the source of a release, as it was compiled.
SOURCE_IMAGE = "slurm-source"


@dataclass(frozen=True)
class Planned:
    """An image that is to be published.

    Attributes:
        image: what it is called in the bake file, and its repository in the registry.
        name: its name on the engine.
        tags: its tags in the registry.
        release: the Slurm in it; None where there is none.
    """

    image: str
    name: str
    tags: Tags
    release: Release | None


def planned(
    client: docker.DockerClient,
    images: Sequence[str] = (),
    releases: Sequence[Release] = (),
    *,
    rebuilt: str = "",
    skip_missing: bool = False,
    unpublishable: bool = False,
    say: Say,
) -> list[Planned]:
    """What is to be published, each release's source before the images that were compiled from it.

    Args:
        client: the engine, which has the images.
        images: as the bake file calls them; by default its group `default`.
        releases: by default the default release.
        rebuilt: what tells a build of the same versions with newer packages from others.
        skip_missing: leave out a release that is not here whole, and say why.
        unpublishable: take images that must not be published.
        say: told what is left out.

    Raises:
        PublishError: an image is missing, must not be published, or its source is not here.
        UsageError: there is no such image.
    """
    known = targets()
    names = [name for name in images or targets(group="default") if name != SOURCE_IMAGE]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no image {', '.join(unknown)}: there are {', '.join(known)}")
    version, today = importlib.metadata.version("slurm-testbed"), datetime.now(UTC).date()
    everything = Releases.load()
    found: list[Planned] = []

    def plan(image: str, release: Release | None) -> Planned:
        name = image_name(image, release or "")
        if not exists(client, name):
            of = f" --release {release.minor}" if release else ""
            raise PublishError(f"there is no {name} to publish", hint=f"build it: invoke build --image {image}{of}")
        if not unpublishable:
            refuse_unpublishable(name, client.images.get(name).labels)
        return Planned(
            image, name, tags_of(release, version, releases=everything, today=today, rebuilt=rebuilt), release
        )

    for release in releases or [everything.default()[0]]:
        try:
            of_release = [plan(name, release) for name in names if name not in WITHOUT_RELEASE]
            found += _with_source(client, of_release, plan)
        except PublishError as error:
            if not skip_missing:
                raise
            say(f"not published: Slurm {release}: {error.message}")
    found += [plan(name, None) for name in names if name in WITHOUT_RELEASE]
    if not found:
        raise PublishError("nothing is here that could be published", hint="build it: invoke build")
    return found


def _with_source(client: docker.DockerClient, images: list[Planned], plan: Callable[..., Planned]) -> list[Planned]:
    """The images after their source, which must be the one that they were compiled from."""
    if not images:
        return []
    release = images[0].release
    assert release
    for image in images:
        where = client.images.get(image.name).labels.get(SOURCE, "")
        if where.startswith("packages"):
            raise PublishError(
                f"{image.name} has Slurm from {where}, whose source is not here to be published beside it",
                hint="build it from source: invoke build --source PATH",
            )
    hint = "build both at once: invoke build " + " ".join(f"--image {i.image}" for i in images)
    hint += f" --image {SOURCE_IMAGE} --release {release.minor}"
    try:
        source: Planned = plan(SOURCE_IMAGE, release)
    except PublishError as error:
        raise PublishError(f"{error.message}: who gives away Slurm gives its source as well", hint=hint) from None
    labels = client.images.get(source.name).labels
    for image in images:
        if why := why_not_its_source(client.images.get(image.name).labels, labels):
            raise PublishError(f"{source.name} is not the source of {image.name}: {why}", hint=hint)
    return [source, *images]
