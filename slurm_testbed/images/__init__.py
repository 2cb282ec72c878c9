"""Names, the bake graph, building and sizes of the images."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import pty
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import tempfile
import termios
import threading
import time
import tty
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, cast

import docker
import docker.errors

from slurm_testbed import data, engine
from slurm_testbed.errors import BuildError, EngineError, NoSourceError, UsageError
from slurm_testbed.releases import Release, Releases, minor_of

REPOSITORY = "slurm-testbed"
#: Debian's suite in every image.
SUITE = "trixie"
#: The base where a registry answers.
REGISTRY_BASE = f"debian:{SUITE}-slim"
#: The base that we bootstrap where none does.
BOOTSTRAP_BASE = f"slurm-testbed/base-bootstrap:{SUITE}"
#: What to give as a base to have it bootstrapped anew.
BOOTSTRAP = "bootstrap"
BOOTSTRAP_AGE = timedelta(days=30)
#: The target without a release: its tag is its Debian.
WITHOUT_RELEASE = "base"
#: BuildKit takes no larger secret.
SECRET_BYTES = 500_000

Say = Callable[[str], None]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


# --- names and sizes -------------------------------------------------------------------------------------


def image_name(target: str, release: Release | str, repository: str | None = None) -> str:
    """The full name of an image.

    Args:
        target: an image of the bake file.
        release: the release, or its version.
        repository: what stands before the image; by default REPOSITORY of the environment, else
            `slurm-testbed`.

    Example:
        >>> image_name("slurm-client", "24.11.5", "example.org/hpc")
        'example.org/hpc/slurm-client:24.11.5'
    """
    prefix = repository or os.environ.get("REPOSITORY") or REPOSITORY
    return f"{prefix}/{target}:{SUITE if target == WITHOUT_RELEASE else release}"


def exists(client: docker.DockerClient, name: str) -> bool:
    """Whether the engine has an image.

    Args:
        client: the engine.
        name: the image's name.

    Example:
        >>> exists(engine.connect(), "slurm-testbed/none:0")
        False
    """
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


@dataclass(frozen=True)
class Size:
    """The size of an image in bytes; `compressed` is None where it was not asked for."""

    uncompressed: int
    compressed: int | None = None


def sizes(client: docker.DockerClient, names: Sequence[str], *, compressed: bool = False) -> dict[str, Size]:
    """The sizes of images.

    Args:
        client: the engine.
        names: the images.
        compressed: also compress each as gzip does, which takes some 5 s for 100 MB.

    Raises:
        EngineError: there is no such image.

    Example:
        >>> sizes(engine.connect(), [])
        {}
    """
    found = {}
    for name in names:
        try:
            image = client.images.get(name)
        except docker.errors.ImageNotFound:
            raise EngineError(f"there is no image {name}", hint="build it: invoke build") from None
        found[name] = Size(
            int(image.attrs["Size"]), _compressed(image.save(chunk_size=1 << 20)) if compressed else None
        )
    return found


def _compressed(chunks: Iterator[bytes]) -> int:
    """How many bytes a stream has when gzip has compressed it."""
    packer = zlib.compressobj(wbits=31)
    return sum(len(packer.compress(chunk)) for chunk in chunks) + len(packer.flush())


# --- child processes -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _child(argv: Sequence[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that never outlives the block, also on Ctrl-C and SIGTERM."""
    with _sigterm_raises():
        # A group of its own, so that we alone pass signals on: docker, on a terminal, keeps them to itself.
        process = subprocess.Popen(  # type: ignore[call-overload]
            argv, stdin=subprocess.DEVNULL, process_group=0, **options
        )
        try:
            yield process
        except BaseException:
            _end(process)
            raise


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, unless somebody else handles it."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a child and its own children; a build and mmdebstrap clean up after SIGTERM."""
    for number, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def _output_of(argv: Sequence[str], **options: object) -> tuple[int, str]:
    """Run a command; its exit status, and standard output and error together."""
    with _child(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as process:
        text = process.communicate()[0].decode(errors="replace")
    return process.returncode, text


# --- the bake graph --------------------------------------------------------------------------------------


def _docker() -> str:
    program = engine.THIS.which("docker")
    if not program:
        raise EngineError(
            "the command docker is not here, and it builds the images",
            hint="install Docker's command line with buildx 0.13 or newer (Debian: docker-cli docker-buildx)",
        )
    return program


def targets(
    *, group: str = "all", release: Release | str | None = None, folder: Path | None = None
) -> dict[str, list[str]]:
    """What the bake file can build, with the tags of each image.

    Args:
        group: a group of the bake file: `all`, or `default`.
        release: the release, or its version, of which the tags are asked; by default the bake file's own.
        folder: another folder with a bake file.

    Raises:
        BuildError: the bake file is wrong.
        EngineError: docker or its buildx is missing.

    Example:
        >>> targets(release="24.11.5")["slurm-client"]
        ['slurm-testbed/slurm-client:24.11.5', 'slurm-testbed/slurm-client:24.11']
    """
    env = {**os.environ, **({"VERSION": str(release)} if release else {})}
    argv = [_docker(), "buildx", "bake", "--print", group]
    with _child(argv, cwd=folder or data.images(), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        out, err = child.communicate()
    if child.returncode:
        text = err.decode(errors="replace").strip()
        if "buildx" in text and "ERROR" not in text:
            raise EngineError(f"docker has no buildx: {text.splitlines()[0]}", hint="install docker-buildx")
        raise BuildError(f"the bake file cannot be read: {text.splitlines()[-1]}")
    found: dict[str, dict[str, list[str]]] = json.loads(out)["target"]
    return {name: found[name].get("tags", []) for name in sorted(found)}


# --- the base --------------------------------------------------------------------------------------------


def choose_base(client: docker.DockerClient, asked: str | None = None, *, say: Say = _say) -> str:
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
        code, text = _output_of(
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
                f"mmdebstrap could not bootstrap Debian {SUITE}; its last lines:\n{_tail(text, 10)}",
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


# --- a source of one's own -------------------------------------------------------------------------------

_TARBALL = re.compile(r".+\.tar\.(gz|bz2|xz)")
_HOW_TO_GIVE = "give a tarball of Slurm (.tar.gz, .tar.bz2 or .tar.xz), or a checkout"


@dataclass(frozen=True)
class GivenSource:
    """A source of one's own, laid out as the build wants it.

    Attributes:
        folder: the source tree, or a folder with a tarball of it.
        version: its version, from META.
        name: what it is called in labels and messages.
    """

    folder: Path
    version: str
    name: str


@contextlib.contextmanager
def given_source(path: Path) -> Iterator[GivenSource]:
    """Lay out a tarball or a checkout of Slurm for the build.

    Args:
        path: the tarball or the checkout.

    Raises:
        UsageError: it is neither.

    Example:
        >>> with given_source(Path("slurm-24.11.5.tar.bz2")) as given:  # doctest: +SKIP
        ...     given.version
        '24.11.5'
    """
    if not path.exists():
        raise UsageError(f"the source {path} does not exist", hint=_HOW_TO_GIVE)
    path = path.resolve()
    with tempfile.TemporaryDirectory(prefix="slurm-testbed-source-") as temporary:
        folder = Path(temporary)
        if path.is_dir():
            meta = path / "META"
            version = _version_in(meta.read_text(errors="replace") if meta.is_file() else "", path)
            if (path / ".git").exists():
                _pack(path, folder / f"{path.name}.tar.checkout")
            else:
                folder = path
        else:
            version = _version_in(_meta_of_tarball(path), path)
            try:
                os.link(path, folder / path.name)
            except OSError:  # another file system
                shutil.copy(path, folder / path.name)
        yield GivenSource(folder, version, path.name)


def _version_in(meta: str, path: Path) -> str:
    match = re.search(r"^\s*Version:\s*(\d+\.\d+\.\w+)\s*$", meta, re.MULTILINE)
    if not match:
        raise UsageError(
            f"{path} is no source of Slurm: {'its META has no version' if meta else 'it has no META file'}",
            hint=_HOW_TO_GIVE,
        )
    return match[1]


def _meta_of_tarball(path: Path) -> str:
    if not _TARBALL.fullmatch(path.name):
        raise UsageError(f"{path} is neither a tarball nor a folder", hint=_HOW_TO_GIVE)
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if re.fullmatch(r"(\./)?[^/]+/META", member.name):
                    return cast(IO[bytes], archive.extractfile(member)).read().decode(errors="replace")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be unpacked: {error}", hint=_HOW_TO_GIVE) from None
    return ""


def _pack(checkout: Path, tarball: Path) -> None:
    """Pack the files of a git checkout, also changed and new ones, but no objects and no history.

    A folder as it is would be another source after every `git status`, and compiled again.
    """
    argv = ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    code, listed = _output_of(argv)
    if code:
        raise UsageError(f"git does not list the files of {checkout}: {listed.strip()}")

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(tarball, "w") as archive:
        for name in sorted(set(filter(None, listed.split("\0")))):
            if os.path.lexists(checkout / name):  # else it was deleted
                archive.add(checkout / name, f"slurm/{name}", filter=anonymous)


# --- building --------------------------------------------------------------------------------------------


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


#: Runs a command with an environment in a folder, shows what it does, and returns exit status and output.
Runner = Callable[[Sequence[str], Mapping[str, str], Path], tuple[int, str]]


def build(
    names: Sequence[str] = (),
    releases: Sequence[Release] = (),
    *,
    source: Path | None = None,
    base: str | None = None,
    folder: Path | None = None,
    skip_unavailable: bool = False,
    say: Say = _say,
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
        chosen = choose_base(client, base, say=say)
        bake = _Bake(client, folder, names, chosen, given, say, run or _runner(say))
        built: list[BuiltImage] = []
        for release in releases:
            try:
                built += bake.build(release)
            except NoSourceError as error:
                if not skip_unavailable:
                    raise
                say(f"skipped: {error}")
    return built


def _release_of(given: GivenSource, asked: Sequence[Release]) -> Release:
    for release in asked:
        if release.version != given.version:
            raise UsageError(
                f"the source {given.name} is Slurm {given.version}, and release {release} is asked for",
                hint="leave out --release: the source says which it is",
            )
    same_minor = [r for r in Releases.load().all if r.minor == minor_of(given.version)]
    return Release(given.version, support_end=same_minor[-1].support_end if same_minor else None)


@dataclass(frozen=True)
class _Bake:
    """The same images of any release."""

    client: docker.DockerClient
    folder: Path
    names: Sequence[str]
    base: str
    given: GivenSource | None
    say: Say
    run: Runner

    def build(self, release: Release) -> list[BuiltImage]:
        """Build the images of one release."""
        self.say(f"building {', '.join(self.names)} of Slurm {release} (a first compile takes some minutes)")
        if release.support_end and not release.supported_on(datetime.now(UTC).date()):
            self.say(f"warning: SchedMD's support for Slurm {release.minor} ended on {release.support_end}")
        start = time.monotonic()
        code, output = self.run(self._argv(), self._environment(release), self.folder)
        seconds = time.monotonic() - start
        if code:
            raise _explained(output, release, code)
        return [
            BuiltImage(tags[0], tuple(tags), sizes(self.client, tags[:1])[tags[0]].uncompressed, seconds)
            for name, tags in targets(release=release, folder=self.folder).items()
            if name in self.names
        ]

    def _argv(self) -> list[str]:
        settings = []
        if bundle := _ca_bundle(self.say):
            settings.append(f"*.secrets=id=ca-bundle,src={bundle}")
        if self.given:
            settings.append(f"*.contexts.given-source={self.given.folder}")
        options = [option for setting in settings for option in ("--set", setting)]
        return [_docker(), "buildx", "bake", *options, *self.names]

    def _environment(self, release: Release) -> dict[str, str]:
        env = {**engine.environment(), "VERSION": release.version, "BASE": self.base}
        env["REVISION"] = _revision(self.folder)
        if self.given:
            env["SOURCE"] = self.given.name
        return env


def _revision(folder: Path) -> str:
    """The commit that last changed the folder, `-dirty` with changes since; of a wheel, its version."""
    try:
        commits, status = (
            _output_of(["git", "-C", str(folder), *arguments, "--", "."])
            for arguments in (["log", "-1", "--format=%H"], ["status", "--porcelain"])
        )
    except FileNotFoundError:  # no git
        return importlib.metadata.version("slurm-testbed")
    if commits[0] or not commits[1].strip():
        return importlib.metadata.version("slurm-testbed")
    return commits[1].strip() + ("-dirty" if status[1].strip() else "")


def _ca_bundle(say: Say) -> str | None:
    """The file of the certificate authorities that this machine trusts, perhaps a proxy's among them."""
    chosen = [os.environ.get(name) for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
    for name in [*chosen, ssl.get_default_verify_paths().cafile, *usual]:
        if name and Path(name).is_file():
            if Path(name).stat().st_size <= SECRET_BYTES:
                return name
            say(f"{name} is larger than a build secret may be; the build trusts Debian's authorities only")
    return None


# --- showing and explaining ------------------------------------------------------------------------------


def _runner(say: Say) -> Runner:
    if os.environ.get("BUILDKIT_PROGRESS", "auto") not in {"auto", "tty"}:
        return lambda argv, env, cwd: _run_in_lines(argv, env, cwd, say)
    if say is _say and sys.stderr.isatty():
        return _run_on_terminal
    return lambda argv, env, cwd: _run_in_lines(argv, env, cwd, _Steps(say).feed)


def _run_in_lines(argv: Sequence[str], env: Mapping[str, str], cwd: Path, feed: Say) -> tuple[int, str]:
    """Run bake without a terminal, and feed each line of its plain progress."""
    argv = [*argv, "--progress=plain"]
    lines = []
    with _child(argv, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for raw in cast(IO[bytes], process.stdout):
            line = raw.decode(errors="replace").rstrip("\r\n")
            lines.append(line)
            feed(line)
        process.wait()
    return process.returncode, "\n".join(lines)


def _run_on_terminal(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> tuple[int, str]:
    """Run bake with its own progress on the terminal, and keep what it wrote last, which has the error."""
    kept: deque[bytes] = deque(maxlen=200)
    screen = sys.stderr.fileno()
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    try:
        termios.tcsetwinsize(theirs, termios.tcgetwinsize(screen))
        with _child(argv, env=env, cwd=cwd, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            theirs = -1
            # The kernel says that the last process has closed its end by an error.
            with contextlib.suppress(OSError):
                while chunk := os.read(ours, 1 << 16):
                    kept.append(chunk)
                    os.write(screen, chunk)
                    termios.tcsetwinsize(ours, termios.tcgetwinsize(screen))
            process.wait()
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    return process.returncode, b"".join(kept).decode(errors="replace")


class _Steps:
    """Says a line for each step of a build that took time, from BuildKit's plain progress."""

    _NAME = re.compile(r"#(\d+) (\[(?!internal).+|exporting .+)")
    _DONE = re.compile(r"#(\d+) (?:DONE ([\d.]+)s|ERROR: .*)")

    def __init__(self, say: Say) -> None:
        self._say = say
        self._names: dict[str, str] = {}

    def feed(self, line: str) -> None:
        """Take a line of the progress."""
        if match := self._NAME.fullmatch(line):
            self._names.setdefault(match[1], _short(match[2]))
        elif (match := self._DONE.fullmatch(line)) and match[1] in self._names:
            name = self._names[match[1]]
            if match[2] is None:
                self._say(f"   failed  {name}")
            elif float(match[2]) > 0:
                self._say(f"{float(match[2]):7.1f} s  {name}")


def _short(name: str) -> str:
    """The name of a step without mounts, variables, and what BuildKit shows of a heredoc."""
    name = re.sub(r"--(mount|from|link|chown)\S*\s+|<<\S+\s*|\(set -\S+\.\.\.\)", "", name)
    name = re.sub(r"\b[A-Z_]+=(\$\(.*?\)|\S+)\s+", "", name)
    name = re.sub(r"\s+", " ", name).strip()
    return name if len(name) <= 100 else f"{name[:99]}…"


_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
_BLOCK = re.compile(r"^-{6}\n > (?P<name>.*):\n(?P<lines>(?:.*\n)*?)-{6}$", re.MULTILINE)
_OURS = "slurm-testbed: "
_TAIL_LINES = 25
#: What a build's output may say, and what to do about it.
_HINTS = {
    r"No space left on device": "the engine's disk is full; `docker system df` shows by what",
    r"Could not resolve|Temporary failure resolving|Failed to fetch|Could not connect|timed out": (
        "the build could not reach Debian's packages: look at the network and the proxy of the engine"
    ),
    r"failed to resolve source metadata|pull access denied|manifest unknown": (
        "the base image cannot be had: invoke build --base IMAGE names another, --base bootstrap makes one"
    ),
    r"Killed|cannot allocate memory": "the machine has too little memory to compile: give it 2 GiB or more",
}


def _explained(output: str, release: Release, code: int) -> BuildError:
    """The error of a failed build from what bake wrote: our scripts' words, else the failing step's last."""
    text = _ESCAPES.sub("", output)
    name, lines = _failed_step(text)
    ours = [line.removeprefix(_OURS) for line in lines if line.startswith(_OURS)]
    if ours:
        hint = ours.pop() if len(ours) > 1 and ours[-1].startswith("Give ") else ""
        kind = NoSourceError if ours[0].startswith("no source of Slurm") else BuildError
        return kind("\n".join(ours), hint=hint)
    errors = re.findall(r"^ERROR: (.*)$", text, re.MULTILINE)
    reason = errors[-1] if errors else f"docker buildx bake exited with {code}"
    # The command stands in the step's name.
    reason = re.sub(r'process ".*" did not complete successfully: ', "", reason)
    message = f"the images of Slurm {release} could not be built: {reason}"
    if lines:
        message += f"\nLast lines of {name}:\n{_tail(chr(10).join(lines), _TAIL_LINES)}"
    for pattern, hint in _HINTS.items():
        if re.search(pattern, f"{reason}\n{message}"):
            return BuildError(message, hint=hint)
    return BuildError(message, hint="the whole log: BUILDKIT_PROGRESS=plain invoke build")


def _failed_step(text: str) -> tuple[str, list[str]]:
    """Name and output of the step that failed: all that plain progress has of it, else the last lines."""
    block = _BLOCK.search(text)
    name = _short(block["name"]) if block else ""
    if number := re.search(r"^#(\d+) ERROR: ", text, re.MULTILINE):
        logged = re.findall(rf"^#{number[1]} [\d.]+ (.*)$", text, re.MULTILINE)
    else:
        logged = re.findall(r"^[\d.]+ (.*)$", block["lines"], re.MULTILINE) if block else []
    return name, logged


def _tail(text: str, lines: int) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])
