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

#: The base where a registry answers.
REGISTRY_BASE = f"debian:{SUITE}-slim"
#: The base that we bootstrap where none does.
BOOTSTRAP_BASE = f"slurm-testbed/base-bootstrap:{SUITE}"
#: What to give as a base to have it bootstrapped anew.
BOOTSTRAP = "bootstrap"
BOOTSTRAP_AGE = timedelta(days=30)


def choose_base(client: docker.DockerClient, asked: str | None = None, *, say: Say = to_stderr) -> str:
    """The base image to build on, which is bootstrapped from Debian's packages where no registry answers.

    Args:
        client: the engine.
        asked: an image to take, or `bootstrap` to bootstrap one anew.
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
    if not asked:
        if exists(client, REGISTRY_BASE):
            say(f"base: {REGISTRY_BASE}, which is here")
            return REGISTRY_BASE
        # Asked before the registry: a base that changes from build to build would compile everything again.
        made = _bootstrapped_at(client)
        if made and datetime.now(UTC) - made < BOOTSTRAP_AGE:
            say(f"base: {BOOTSTRAP_BASE}, bootstrapped on {made:%Y-%m-%d}")
            return BOOTSTRAP_BASE
        if engine.registry_answers(client, image=REGISTRY_BASE):
            say(f"base: {REGISTRY_BASE} from its registry")
            return REGISTRY_BASE
    why = "as asked" if asked else "because no registry answers"
    say(f"base: {BOOTSTRAP_BASE}, bootstrapped now from Debian's packages (some 15 s), {why}")
    _bootstrap(client)
    return BOOTSTRAP_BASE


def _bootstrapped_at(client: docker.DockerClient) -> datetime | None:
    try:
        return datetime.fromisoformat(client.images.get(BOOTSTRAP_BASE).attrs["Created"])
    except docker.errors.ImageNotFound:
        return None


def _bootstrap(client: docker.DockerClient) -> None:
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
                SUITE,
                str(file),
            ]
        )
        if code:
            raise BuildError(
                f"mmdebstrap could not bootstrap Debian {SUITE}; its last lines:\n{tail(text, 10)}",
                hint=f"it needs the network, and root or user namespaces; put that right, {instead}",
            )
        repository, _, tag = BOOTSTRAP_BASE.partition(":")
        answer = client.api.import_image_from_file(
            str(file), repository=repository, tag=tag, changes=[f"LABEL {engine.LABEL}.base={SUITE}"]
        )
    if '"error"' in answer:
        raise BuildError(f"the engine did not import the base: {answer.strip()}")


def remove_base(client: docker.DockerClient) -> list[str]:
    """Remove the base that we bootstrapped.

    Args:
        client: the engine.

    Returns:
        The names of the removed images.

    Example:
        >>> remove_base(engine.connect())  # doctest: +SKIP
        ['slurm-testbed/base-bootstrap:trixie']
    """
    if not exists(client, BOOTSTRAP_BASE):
        return []
    client.images.remove(BOOTSTRAP_BASE)
    return [BOOTSTRAP_BASE]
