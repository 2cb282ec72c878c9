"""The base that every image stands on: from a registry, or bootstrapped from Debian's packages."""

from __future__ import annotations

import platform
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import docker
import docker.errors

from slurm_testbed import engine
from slurm_testbed.children import output_of
from slurm_testbed.errors import BuildError, tail
from slurm_testbed.images.names import SUITE, exists
from slurm_testbed.images.say import Say, to_stderr

#: What to give as a base to have it bootstrapped anew.
BOOTSTRAP = "bootstrap"
BOOTSTRAP_AGE = timedelta(days=30)
_BOOTSTRAPPED = "slurm-testbed/base-bootstrap"


def registry_base(suite: str = SUITE) -> str:
    """The base of a suite where a registry answers.

    Example:
        >>> registry_base("sid")
        'debian:sid-slim'
    """
    return f"debian:{suite}-slim"


def bootstrap_base(suite: str = SUITE) -> str:
    """The base of a suite that we bootstrap where no registry answers.

    Example:
        >>> bootstrap_base("sid")
        'slurm-testbed/base-bootstrap:sid'
    """
    return f"{_BOOTSTRAPPED}:{suite}"


#: The base of the images that we compile, where a registry answers.
REGISTRY_BASE = registry_base()
#: The one that we bootstrap where none does.
BOOTSTRAP_BASE = bootstrap_base()


def choose_base(
    client: docker.DockerClient, asked: str | None = None, *, suite: str = SUITE, say: Say = to_stderr
) -> str:
    """The base image to build on, which is bootstrapped from Debian's packages where no registry answers.

    Args:
        client: the engine.
        asked: an image to take, or `bootstrap` to bootstrap one anew.
        suite: Debian's suite.
        say: told which base it is, and why.

    Raises:
        BuildError: no registry answers, and the base cannot be bootstrapped.

    Example:
        >>> choose_base(engine.connect(), "debian:sid-slim", say=print)
        base: debian:sid-slim, as asked
        'debian:sid-slim'
    """
    if asked and asked != BOOTSTRAP:
        say(f"base: {asked}, as asked")
        return asked
    of_registry, ours = registry_base(suite), bootstrap_base(suite)
    if not asked:
        if exists(client, of_registry):
            say(f"base: {of_registry}, which is here")
            return of_registry
        # Asked before the registry: a base that changes from build to build would compile everything again.
        made = _made_at(client, ours)
        if made and datetime.now(UTC) - made < BOOTSTRAP_AGE:
            say(f"base: {ours}, bootstrapped on {made:%Y-%m-%d}")
            return ours
        if engine.registry_answers(client, image=of_registry):
            say(f"base: {of_registry} from its registry")
            return of_registry
    why = "as asked" if asked else "because no registry answers"
    say(f"base: {ours}, bootstrapped now from Debian's packages (some 15 s), {why}")
    _bootstrap(client, suite)
    return ours


def _made_at(client: docker.DockerClient, name: str) -> datetime | None:
    try:
        return datetime.fromisoformat(client.images.get(name).attrs["Created"])
    except docker.errors.ImageNotFound:
        return None


#: Options of mmdebstrap for the suite of a release's packages. That suite alone: the ones beside it name files that
#: are gone once it is archived. A suite without releases has an index that expires, which a lagging mirror keeps.
_OTHER_SUITE = (
    """--setup-hook=sed -i -E '/ [a-z]+-(updates|security) /d' "$1/etc/apt/sources.list\"""",
    '--aptopt=Acquire::Check-Valid-Until "false"',
)


def _bootstrap(client: docker.DockerClient, suite: str) -> None:
    """Make the base with mmdebstrap, which knows Debian's mirror itself."""
    instead = "or name an image that is here: invoke build --base IMAGE"
    program = engine.THIS.which("mmdebstrap")
    if not program:
        raise BuildError(
            "no registry answers, and mmdebstrap, which would bootstrap the base, is not here",
            hint=f"install it (Debian, Ubuntu: apt-get install mmdebstrap debian-archive-keyring), {instead}",
        )
    theirs = client.info().get("Architecture")
    if theirs != platform.machine():
        raise BuildError(
            f"a base bootstrapped here, on {platform.machine()}, does not run on the engine's {theirs}",
            hint=f"build on that machine, {instead}",
        )
    with tempfile.TemporaryDirectory(prefix="slurm-testbed-base-") as folder:
        file = Path(folder, "base.tar")
        code, text = output_of(
            [
                program,
                "--variant=minbase",
                "--include=ca-certificates",
                *(f"--dpkgopt=path-exclude=/usr/share/{kind}/*" for kind in ("doc", "info", "locale", "man")),
                "--dpkgopt=path-include=/usr/share/doc/*/copyright",
                *(_OTHER_SUITE if suite != SUITE else ()),
                suite,
                str(file),
            ]
        )
        if code:
            raise BuildError(
                f"mmdebstrap could not bootstrap Debian {suite}; its last lines:\n{tail(text, 10)}",
                hint=f"it needs the network, and root or user namespaces; put that right, {instead}",
            )
        answer = client.api.import_image_from_file(
            str(file), repository=_BOOTSTRAPPED, tag=suite, changes=[f"LABEL {engine.LABEL}.base={suite}"]
        )
    if '"error"' in answer:
        raise BuildError(f"the engine did not import the base: {answer.strip()}")


def remove_base(client: docker.DockerClient) -> list[str]:
    """Remove the bases that we bootstrapped.

    Args:
        client: the engine.

    Returns:
        The names of the removed images.

    Example:
        >>> remove_base(engine.connect())  # doctest: +SKIP
        ['slurm-testbed/base-bootstrap:trixie']
    """
    names = [tag for image in client.images.list(name=_BOOTSTRAPPED) for tag in image.tags]
    for name in names:
        client.images.remove(name)
    return names
