"""Build the images of one release after another."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import docker

from slurm_testbed import data, engine
from slurm_testbed.children import output_of
from slurm_testbed.errors import NoSourceError, UsageError
from slurm_testbed.images.bake import docker_program, targets
from slurm_testbed.images.base import BOOTSTRAP, choose_base
from slurm_testbed.images.explanation import explained
from slurm_testbed.images.names import SUITE, WITH_SIF
from slurm_testbed.images.progress import Runner, run_silently, runner
from slurm_testbed.images.say import Say, to_stderr
from slurm_testbed.images.settings import registry_settings
from slurm_testbed.images.size import sizes
from slurm_testbed.images.source import GivenSource, given_source
from slurm_testbed.releases import Release, Releases, Source, minor_of

#: The target that only finds out whether the source can be had.
SOURCE_TARGET = "source"
#: The target that holds a Slurm: images of others, derived from ours, have none to make.
TREE = "slurm-tree"
#: BuildKit takes no larger secret.
SECRET_BYTES = 500_000


@dataclass(frozen=True)
class BuiltImage:
    """An image that a build has left.

    Attributes:
        name: its name with the full version.
        tags: all its names.
        size: uncompressed, in bytes.
        seconds: how long the build took that it comes from; images of one release are built together.
    """

    name: str
    tags: tuple[str, ...]
    size: int
    seconds: float


def build(
    names: Sequence[str] = (),
    releases: Sequence[Release] = (),
    *,
    source: Path | None = None,
    base: str | None = None,
    folder: Path | None = None,
    skip_unavailable: bool = False,
    say: Say = to_stderr,
    run: Runner | None = None,
) -> list[BuiltImage]:
    """Build images, one release after another.

    Args:
        names: the images, as the bake file calls them; by default those of its group `default`.
        releases: the releases; by default the default release, or that of the given source.
        source: a tarball or checkout of Slurm to build, whose META names the version.
        base: the base image, or `bootstrap` to bootstrap one anew; by default it is chosen.
        folder: another folder with a bake file.
        skip_unavailable: go on with the next release where no source of one can be had.
        say: told what goes on, a line at a time.
        run: runs the builds; by default on the terminal, where there is one, else it says a line per step.

    Raises:
        UsageError: there is no such image, or the source is none.
        BuildError: an image could not be built.
        NoSourceError: no source of a release can be had.
        EngineNotFoundError: no engine answers.

    Example:
        >>> build(["slurm-client"], [Releases.load().find("24.11")])[0].name  # doctest: +SKIP
        'slurm-testbed/slurm-client:24.11.5'
    """
    folder = folder or data.images()
    names = list(dict.fromkeys(names)) or list(targets(group="default", folder=folder))
    known = targets(folder=folder)
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no image {', '.join(unknown)}: there are {', '.join(known)}")
    client = engine.connect()
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(given_source(source)) if source else None
        if given:
            releases = [_release_of(given, releases)]
            say(f"source: {given.name}, which is Slurm {given.version}; the images are tagged by that version")
        elif not releases:
            release, why = Releases.load(folder / "releases.yaml").default()
            releases = [release]
            say(why)
        compiles = TREE in known
        bake = _Bake(client, folder, names, base, given, say, run or runner(say), run or run_silently, compiles)
        built: list[BuiltImage] = []
        for release in releases:
            try:
                built += bake.build(release)
            except NoSourceError as error:
                if not skip_unavailable:
                    raise
                say(f"skipped: {error}")
    return built


def why_no_source(release: Release, *, folder: Path | None = None, say: Say = to_stderr) -> str:
    """Why no source of a release can be had now, in one line; empty where one can. Takes some seconds.

    Args:
        release: the release.
        folder: another folder with a bake file.
        say: told which base the question is asked on.

    Example:
        >>> why_no_source(Releases.load().find("25.05"))  # doctest: +SKIP
        'https://download.schedmd.com/…: releases.yaml has no digest for it, so it was not tried'
    """
    folder = folder or data.images()
    bake = _Bake(engine.connect(), folder, [SOURCE_TARGET], None, None, say, run_silently, run_silently)
    return bake.why_no_source(release)


def run_target(
    name: str,
    variables: Mapping[str, str],
    *,
    base: str | None = None,
    folder: Path | None = None,
    say: Say = to_stderr,
) -> None:
    """Run a target of the bake file that leaves no image, with the default release.

    Args:
        name: the target.
        variables: of the bake file.
        base: the base image; by default it is chosen.
        folder: another folder with a bake file.
        say: told what goes on, a line at a time.

    Raises:
        BuildError: it failed.
    """
    folder = folder or data.images()
    release, _ = Releases.load(folder / "releases.yaml").default()
    bake = _Bake(engine.connect(), folder, [name], base, None, say, runner(say), run_silently, variables=variables)
    bake.run_alone(release)


def _release_of(given: GivenSource, asked: Sequence[Release]) -> Release:
    for release in asked:
        if release.version != given.version:
            raise UsageError(
                f"the source {given.name} is Slurm {given.version}, and release {release} is asked for",
                hint="leave out --release: the source says which it is",
            )
    same_minor = [r for r in Releases.load().all if r.minor == minor_of(given.version)]
    return Release(given.version, support_end=same_minor[-1].support_end if same_minor else None)


#: A fault of BuildKit's with builds side by side, which a second try does not meet: https://github.com/moby/buildkit/issues/2303
_LOST_TRACK = "failed to get edge: inconsistent graph state"


@dataclass(frozen=True)
class _Bake:
    """The same images of any release."""

    client: docker.DockerClient
    folder: Path
    names: Sequence[str]
    asked_base: str | None
    given: GivenSource | None
    say: Say
    run: Runner
    ask: Runner
    compiles: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    _bases: dict[str, str] = field(default_factory=dict)

    def build(self, release: Release) -> list[BuiltImage]:
        """Build the images of one release, from its packages where no source can be had."""
        self.say(f"building {', '.join(self.names)} of Slurm {release} (a first compile takes some minutes)")
        if release.support_end and not release.supported_on(datetime.now(UTC).date()):
            self.say(f"warning: SchedMD's support for Slurm {release.minor} ended on {release.support_end}")
        start = time.monotonic()
        packages = None if self.given or not self.compiles else self._packages_in_place_of_source(release)
        names = self._names_on(packages, release)
        self._bake(names, release, packages, self.run)
        seconds = time.monotonic() - start
        return [
            BuiltImage(tags[0], tuple(tags), sizes(self.client, tags[:1])[tags[0]].uncompressed, seconds)
            for name, tags in targets(release=release, folder=self.folder, variables=_slurm_of(packages)).items()
            if name in names
        ]

    def _names_on(self, packages: Source | None, release: Release) -> list[str]:
        """The images that can stand on the release's packages, or on its source; says which cannot."""
        gaps = {name: packages.no_images[name] for name in self.names if packages and name in packages.no_images}
        texts = [f"no {name} of Slurm {release} on {packages}: {why}" for name, why in gaps.items()]
        if len(gaps) == len(self.names):
            raise NoSourceError(
                "\n".join(texts), hint="take another release, or give its source: invoke build --source"
            )
        for text in texts:
            self.say(f"gap: {text}")
        return [name for name in self.names if name not in gaps]

    def _packages_in_place_of_source(self, release: Release) -> Source | None:
        """The release's packages if it has some and none of its sources can be had now; else None."""
        packages = release.packages
        why = self.why_no_source(release) if packages else ""
        if not why:
            return None
        self.say(f"source: {packages} instead of source code, which could not be had ({why})")
        return packages

    def run_alone(self, release: Release) -> None:
        """Run the targets, and ask for no images that they leave."""
        self._bake(self.names, release, None, self.run)

    def why_no_source(self, release: Release) -> str:
        """Why no source of a release can be had now, in one line; empty where one can."""
        try:
            self._bake([SOURCE_TARGET], release, None, self.ask)
        except NoSourceError as error:
            return "; ".join(line.strip() for line in error.message.splitlines()[1:])
        return ""

    def _bake(self, names: Sequence[str], release: Release, packages: Source | None, run: Runner) -> None:
        argv, env = self._argv(names), self._environment(release, packages)
        code, output = run(argv, env, self.folder)
        if code and _LOST_TRACK in output:
            self.say("BuildKit lost track of a step that two builds share; building again, what is done is kept")
            code, output = run(argv, env, self.folder)
        if code:
            raise explained(output, release, code)

    def _argv(self, names: Sequence[str]) -> list[str]:
        settings = []
        if bundle := ca_bundle(self.say):
            settings.append(f"*.secrets=id=ca-bundle,src={bundle}")
        # From variables, not files: nothing of them is written anywhere.
        settings += [f"*.secrets=id={name},env={_variable(name)}" for name in registry_settings()]
        if self.given:
            settings.append(f"*.contexts.given-source={self.given.folder}")
        options = [option for setting in settings for option in ("--set", setting)]
        return [docker_program(), "buildx", "bake", *options, *names]

    def _environment(self, release: Release, packages: Source | None) -> dict[str, str]:
        env = {**engine.environment(), "VERSION": release.version, "REVISION": revision_of(self.folder)}
        env |= _slurm_of(packages)
        env["BASE"] = self._base(env["SUITE"])
        if WITH_SIF.intersection(name.removesuffix("-sif") for name in self.names):
            env |= {"APPS_SUITE": SUITE, "APPS_BASE": self._base(SUITE)}
        env |= self.variables
        env |= {_variable(name): text for name, text in registry_settings().items()}
        if self.given:
            env["SOURCE"] = self.given.name
        return env

    def _base(self, suite: str) -> str:
        """The base of a suite; it is chosen once."""
        if suite not in self._bases:
            asked = self.asked_base
            if suite != SUITE and asked not in {None, BOOTSTRAP}:
                raise UsageError(
                    f"packages of Debian {suite} do not go onto the base {asked}",
                    hint="leave out --base: the release brings a base of its own",
                )
            self._bases[suite] = choose_base(self.client, asked, suite=suite, say=self.say)
        return self._bases[suite]


def _slurm_of(packages: Source | None) -> dict[str, str]:
    """Where Slurm comes from, as the bake file says it."""
    return {"SLURM": "packaged", "SUITE": packages.where} if packages else {"SLURM": "compiled", "SUITE": SUITE}


def _variable(secret: str) -> str:
    return f"SLURM_TESTBED_{secret.replace('-', '_').upper()}"


def revision_of(folder: Path) -> str:
    """The commit that last changed the folder, `-dirty` with changes since; of a wheel, its version."""
    try:
        commits, status = (
            output_of(["git", "-C", str(folder), *arguments, "--", "."])
            for arguments in (["log", "-1", "--format=%H"], ["status", "--porcelain"])
        )
    except FileNotFoundError:  # no git
        return importlib.metadata.version("slurm-testbed")
    if commits[0] or not commits[1].strip():
        return importlib.metadata.version("slurm-testbed")
    return commits[1].strip() + ("-dirty" if status[1].strip() else "")


def ca_bundle(say: Say) -> str | None:
    """The file of the certificate authorities that this machine trusts, perhaps a proxy's among them."""
    chosen = [os.environ.get(name) for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
    for name in [*chosen, ssl.get_default_verify_paths().cafile, *usual]:
        if name and Path(name).is_file():
            if Path(name).stat().st_size <= SECRET_BYTES:
                return name
            say(f"{name} is larger than a build secret may be; the build trusts Debian's authorities only")
    return None
