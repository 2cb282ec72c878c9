"""Images: names, the bake graph, the base, sources of one's own, and what a build says."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import pty
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from slurm_testbed import data, engine, images
from slurm_testbed.engine import Machine
from slurm_testbed.errors import BuildError, EngineError, NoSourceError, UsageError
from slurm_testbed.releases import Release, Releases

RELEASE = Release("24.11.5")


# --- names and sizes -------------------------------------------------------------------------------------


def test_image_name_has_the_full_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPOSITORY", raising=False)

    assert images.image_name("slurm-client", RELEASE) == "slurm-testbed/slurm-client:24.11.5"


@pytest.mark.row("C-05.1")
def test_repository_of_the_environment_names_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPOSITORY", "hokiegeek2")

    assert images.image_name("slurm-single-node", "22.05.8") == "hokiegeek2/slurm-single-node:22.05.8"


def test_given_repository_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPOSITORY", "hokiegeek2")

    assert images.image_name("base", RELEASE, "mine") == "mine/base:trixie"


@dataclass
class FakeImage:
    """An image of the fake engine."""

    content: bytes = b""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def attrs(self) -> dict[str, Any]:
        """What inspection tells; the engine writes nanoseconds."""
        created = self.created.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"
        return {"Size": len(self.content), "Created": created}

    def save(self, chunk_size: int) -> Iterator[bytes]:
        """The image as a stream of chunks."""
        for start in range(0, len(self.content), chunk_size):
            yield self.content[start : start + chunk_size]


@dataclass
class FakeClient:
    """An engine that knows images by name, and imports files."""

    known: dict[str, FakeImage] = field(default_factory=dict)
    machine: str = field(default_factory=platform.machine)
    answer: str = '{"status":"sha256:1"}'

    @property
    def images(self) -> FakeClient:
        """Its images."""
        return self

    @property
    def api(self) -> FakeClient:
        """Its low-level interface."""
        return self

    def get(self, name: str) -> FakeImage:
        """An image by name."""
        if name not in self.known:
            raise docker.errors.ImageNotFound(name)
        return self.known[name]

    def info(self) -> dict[str, str]:
        """What the engine says of itself."""
        return {"Architecture": self.machine}

    def import_image_from_file(self, path: str, *, repository: str, tag: str, changes: list[str]) -> str:
        """Make an image of a file."""
        self.known[f"{repository}:{tag}"] = FakeImage(Path(path).read_bytes() + changes[0].encode())
        return self.answer


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """An engine without images, and without a registry."""
    fake = FakeClient()
    monkeypatch.setattr(engine, "connect", lambda: fake)
    monkeypatch.setattr(engine, "environment", lambda: {"PATH": os.environ["PATH"]})
    monkeypatch.setattr(engine, "registry_answers", lambda _, **__: False)
    return fake


def test_exists_asks_the_engine(client: FakeClient) -> None:
    client.known["here:1"] = FakeImage()

    assert [images.exists(client, name) for name in ("here:1", "gone:1")] == [True, False]  # type: ignore[arg-type]


def test_sizes_are_compressed_on_demand(client: FakeClient) -> None:
    client.known["zeros:1"] = FakeImage(bytes(3 << 20))

    plain = images.sizes(client, ["zeros:1"])["zeros:1"]  # type: ignore[arg-type]
    packed = images.sizes(client, ["zeros:1"], compressed=True)["zeros:1"]  # type: ignore[arg-type]

    assert (plain.uncompressed, plain.compressed) == (3 << 20, None)
    assert packed.compressed is not None
    assert 100 < packed.compressed < 10_000, "3 MiB of zeros compress to some kB"


def test_size_of_a_missing_image_says_how_to_get_it(client: FakeClient) -> None:
    with pytest.raises(EngineError, match="there is no image gone:1") as error:
        images.sizes(client, ["gone:1"])  # type: ignore[arg-type]

    assert "invoke build" in error.value.hint


# --- the bake graph --------------------------------------------------------------------------------------


def bake(*arguments: str, **env: str) -> dict[str, Any]:
    """What bake would build, asked without anything of ours but its files."""
    unset = {"VERSION", "BASE", "REPOSITORY", "REVISION"}
    done = subprocess.run(
        ["docker", "buildx", "bake", "--print", *arguments],
        cwd=data.images(),
        env={**{name: value for name, value in os.environ.items() if name not in unset}, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    graph: dict[str, Any] = json.loads(done.stdout)["target"]
    return graph


@pytest.mark.parametrize("release", [release.version for release in Releases.load().all])
def test_bake_tags_every_image_as_image_name_says(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPOSITORY", raising=False)

    tagged = {name: target["tags"] for name, target in bake("all", VERSION=release).items()}

    assert set(tagged) == {"base", "slurm-tree", "slurm-client", "slurm-single-node", "slurm-dev"}
    for name, tags in tagged.items():
        minor = [] if name == "base" else [images.image_name(name, release.rpartition(".")[0])]
        assert tags == [images.image_name(name, release), *minor], name


@pytest.mark.row("C-05.1", "C-05.2")
def test_repository_and_version_are_parameters_of_bake() -> None:
    target = bake("slurm-client", REPOSITORY="hokiegeek2", VERSION="22.05.8")["slurm-client"]

    assert target["tags"] == ["hokiegeek2/slurm-client:22.05.8", "hokiegeek2/slurm-client:22.05"]
    assert target["args"] == {"BASE": "debian:trixie-slim", "VERSION": "22.05.8"}


def test_bake_without_arguments_builds_what_invoke_build_does() -> None:
    graph = bake()

    assert sorted(graph) == list(images.targets(group="default")) == ["slurm-client", "slurm-single-node"]
    assert graph["slurm-client"]["args"]["VERSION"] == Releases.load().find().version


@pytest.mark.parametrize("release", Releases.load().all, ids=str)
def test_labels_say_what_an_image_is(release: Release) -> None:
    graph = bake("all", VERSION=release.version, BASE="debian:sid-slim", REVISION="abc")

    for name, target in graph.items():
        labels = target["labels"]
        ours = {
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.revision": "abc",
            "org.opencontainers.image.base.name": "debian:sid-slim",
            "org.slurm-testbed.interface": "1",
        }
        of_release = {
            "org.opencontainers.image.version": release.version,
            "org.slurm-testbed.release": release.version,
            "org.slurm-testbed.support-end": str(release.support_end),
            "org.slurm-testbed.source": "releases.yaml",
        }
        expected = ours if name == "base" else ours | of_release
        assert labels | expected == labels, name
        for key in ("description", "source", "licenses"):
            assert labels[f"org.opencontainers.image.{key}"], f"{name} has no {key}"
        assert name == "base" or "GPL-2.0" in labels["org.opencontainers.image.licenses"], name


def test_release_that_nobody_described_has_no_support_end() -> None:
    labels = bake("slurm-client", VERSION="99.05.0")["slurm-client"]["labels"]

    assert labels["org.slurm-testbed.support-end"] == "unknown"


def test_wrong_bake_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "docker-bake.hcl").write_text('target "x" {')

    with pytest.raises(BuildError, match=r"the bake file cannot be read: .*docker-bake\.hcl"):
        images.targets(folder=tmp_path)


def test_missing_docker_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "THIS", Machine(environ={"PATH": str(tmp_path)}))

    with pytest.raises(EngineError, match="the command docker is not here") as error:
        images.targets()

    assert "docker-buildx" in error.value.hint


def test_docker_without_buildx_is_named(program: Callable[[str, str], Path]) -> None:
    program("docker", """echo "docker: 'buildx' is not a docker command." >&2; exit 1""")

    with pytest.raises(EngineError, match="docker has no buildx"):
        images.targets()


# --- the base --------------------------------------------------------------------------------------------


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], Path]:
    """Puts a shell script onto the PATH, before everything else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = f"{folder}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(engine, "THIS", Machine(environ={**os.environ, "PATH": path}))

    def write(name: str, script: str) -> Path:
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    return write


@pytest.fixture
def said() -> list[str]:
    """What was said."""
    return []


def choose(client: FakeClient, said: list[str], asked: str | None = None) -> str:
    """The base that is chosen on this engine."""
    return images.choose_base(client, asked, say=said.append)  # type: ignore[arg-type]


def test_asked_base_is_taken(client: FakeClient, said: list[str]) -> None:
    assert choose(client, said, "debian:sid-slim") == "debian:sid-slim"
    assert said == ["base: debian:sid-slim, as asked"]


def test_base_of_the_registry_is_taken_where_it_answers(
    client: FakeClient, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "registry_answers", lambda _, image: image == "debian:trixie-slim")

    assert choose(client, said) == "debian:trixie-slim"
    assert said == ["base: debian:trixie-slim from its registry"]


def test_base_that_is_here_needs_no_registry(client: FakeClient, said: list[str]) -> None:
    client.known["debian:trixie-slim"] = FakeImage()

    assert choose(client, said) == "debian:trixie-slim"


@pytest.fixture
def mmdebstrap(program: Callable[[str, str], Path], tmp_path: Path) -> Path:
    """An mmdebstrap that notes its arguments and writes a file; the path of its notes."""
    notes = tmp_path / "mmdebstrap.txt"
    program("mmdebstrap", f'echo "$@" > {notes}; for last; do :; done; echo tar > "$last"')
    return notes


def test_base_is_bootstrapped_where_no_registry_answers(client: FakeClient, said: list[str], mmdebstrap: Path) -> None:
    assert choose(client, said) == images.BOOTSTRAP_BASE

    assert client.known[images.BOOTSTRAP_BASE].content == b"tar\nLABEL org.slurm-testbed.base=trixie"
    assert "because no registry answers" in said[0]
    assert "://" not in mmdebstrap.read_text(), "a mirror's address was written"


def test_fresh_bootstrapped_base_is_taken_again(client: FakeClient, said: list[str], mmdebstrap: Path) -> None:
    client.known[images.BOOTSTRAP_BASE] = FakeImage(created=datetime.now(UTC) - timedelta(days=29))

    assert choose(client, said) == images.BOOTSTRAP_BASE
    assert not mmdebstrap.exists(), "it was bootstrapped again"


@pytest.mark.parametrize(("days", "asked"), [(31, None), (1, "bootstrap")])
def test_bootstrapped_base_is_made_again_when_old_or_asked(
    client: FakeClient, said: list[str], mmdebstrap: Path, days: int, asked: str | None
) -> None:
    client.known[images.BOOTSTRAP_BASE] = FakeImage(created=datetime.now(UTC) - timedelta(days=days))

    assert choose(client, said, asked) == images.BOOTSTRAP_BASE
    assert mmdebstrap.exists(), "it was not bootstrapped again"


def test_missing_mmdebstrap_says_how_to_get_it(
    client: FakeClient, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "THIS", Machine(environ={"PATH": str(tmp_path)}))

    with pytest.raises(BuildError, match="mmdebstrap, which would bootstrap the base, is not here") as error:
        choose(client, said)

    assert "apt-get install mmdebstrap" in error.value.hint


def test_failing_mmdebstrap_is_quoted(client: FakeClient, said: list[str], program: Callable[[str, str], Path]) -> None:
    program("mmdebstrap", "echo 'E: no such suite' >&2; exit 25")

    with pytest.raises(BuildError, match="could not bootstrap Debian trixie; its last lines:\nE: no such suite"):
        choose(client, said)


@pytest.mark.usefixtures("mmdebstrap")
def test_failing_import_is_told(client: FakeClient, said: list[str]) -> None:
    client.answer = '{"error":"no space"}'

    with pytest.raises(BuildError, match=r"did not import the base: .*no space"):
        choose(client, said)


@pytest.mark.usefixtures("mmdebstrap")
def test_base_is_not_bootstrapped_for_another_architecture(client: FakeClient, said: list[str]) -> None:
    client.machine = "pdp11"

    with pytest.raises(BuildError, match="does not run on the engine's pdp11"):
        choose(client, said)


# --- a source of one's own -------------------------------------------------------------------------------

META = "  Meta:\t1\n  Name:\tslurm\n  Major:\t25\n  Version:\t25.05.1\n  Release:\t1\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the build looks at in a tree of Slurm."""
    folder = tmp_path / "slurm-main"
    (folder / "src").mkdir(parents=True)
    (folder / "META").write_text(META)
    (folder / "src/slurm.c").write_text("int main;")
    return folder


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_tarball_says_its_version(checkout: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"slurm.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as archive:  # type: ignore[call-overload]
        archive.add(checkout, "slurm-25.05.1")

    with images.given_source(path) as given:
        assert given.version == "25.05.1"
        assert [file.name for file in given.folder.iterdir()] == [path.name]
        assert (given.folder / path.name).read_bytes() == path.read_bytes()

    assert not given.folder.exists(), "the temporary folder is left"
    assert path.exists(), "the tarball is gone"


def test_folder_is_given_as_it_is(checkout: Path) -> None:
    with images.given_source(checkout) as given:
        assert (given.folder, given.version, given.name) == (checkout, "25.05.1", "slurm-main")

    assert checkout.exists()


def test_checkout_is_packed_without_history_and_objects(checkout: Path) -> None:
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (checkout / ".gitignore").write_text("*.o\n")
    (checkout / "gone.c").touch()
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=all"], check=True)
    (checkout / "src/slurm.o").touch()
    (checkout / "src/new.c").touch()
    (checkout / "gone.c").unlink()

    with images.given_source(checkout) as given:
        (tarball,) = given.folder.iterdir()
        with tarfile.open(tarball) as archive:
            names = archive.getnames()

    assert names == ["slurm/.gitignore", "slurm/META", "slurm/src/new.c", "slurm/src/slurm.c"]
    assert ".tar." in tarball.name, "the build looks for *.tar.*"


def _other_tarball(folder: Path) -> Path:
    path = folder / "other.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("other-1.0/README"), io.BytesIO())
    return path


def _broken_tarball(folder: Path) -> Path:
    path = folder / "slurm.tar.gz"
    path.write_bytes(b"not found")
    return path


def _cut_tarball(folder: Path) -> Path:
    path = _other_tarball(folder)
    path.write_bytes(path.read_bytes()[:40])
    return path


def _text(folder: Path) -> Path:
    path = folder / "slurm.txt"
    path.touch()
    return path


def _folder(folder: Path) -> Path:
    return folder


def _odd_meta(folder: Path) -> Path:
    (folder / "META").write_text("Name: slurm\n")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nothing", "the source .*nothing does not exist"),
        (_other_tarball, r"other\.tar\.gz is no source of Slurm: it has no META"),
        (_broken_tarball, r"slurm\.tar\.gz cannot be unpacked"),
        (_cut_tarball, r"other\.tar\.gz cannot be unpacked"),
        (_text, r"slurm\.txt is neither a tarball nor a folder"),
        (_folder, "is no source of Slurm: it has no META"),
        (_odd_meta, "is no source of Slurm: its META has no version"),
    ],
)
def test_what_is_no_source_is_refused_with_what_would_be(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error, images.given_source(make(tmp_path)):
        pass

    assert "give a tarball of Slurm" in error.value.hint


# --- building --------------------------------------------------------------------------------------------


@dataclass
class FakeRun:
    """Runs nothing: notes what was asked, and ends as it is told for a version."""

    client: FakeClient
    ends: dict[str, tuple[int, str]] = field(default_factory=dict)
    calls: list[tuple[Sequence[str], Mapping[str, str]]] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], env: Mapping[str, str], _: Path) -> tuple[int, str]:
        """Run bake."""
        self.calls.append((argv, env))
        for name in ("slurm-client", "slurm-single-node"):
            self.client.known[images.image_name(name, env["VERSION"])] = FakeImage(b"12345")
        return self.ends.get(env["VERSION"], (0, ""))


@pytest.fixture
def run(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A build that succeeds at once, on a base that is here."""
    monkeypatch.delenv("REPOSITORY", raising=False)
    client.known["debian:trixie-slim"] = FakeImage()
    return FakeRun(client)


def build(run: FakeRun, said: list[str], *arguments: Any, **options: Any) -> list[images.BuiltImage]:
    """Build with the fake runner."""
    return images.build(*arguments, say=said.append, run=run, **options)


def test_build_without_arguments_makes_client_and_single_node_of_the_default(run: FakeRun, said: list[str]) -> None:
    default, why = Releases.load().default()

    built = build(run, said)

    assert [(image.name, image.size) for image in built] == [
        (f"slurm-testbed/slurm-client:{default}", 5),
        (f"slurm-testbed/slurm-single-node:{default}", 5),
    ]
    assert said[0] == why
    argv, env = run.calls[0]
    assert list(argv[1:3]) == ["buildx", "bake"]
    assert (env["VERSION"], env["BASE"]) == (default.version, "debian:trixie-slim")


def test_releases_are_built_one_after_another_with_a_warning_past_their_support(run: FakeRun, said: list[str]) -> None:
    build(run, said, ["slurm-client"], Releases.load().all)

    assert [env["VERSION"] for _, env in run.calls] == ["22.05.8", "24.11.5"]
    assert "warning: SchedMD's support for Slurm 22.05 ended on 2023-11-30" in said


def test_unknown_image_names_the_known(run: FakeRun, said: list[str]) -> None:
    known = "base, slurm-client, slurm-dev, slurm-single-node, slurm-tree"
    with pytest.raises(UsageError, match=f"no image slurm-cleint: there are {known}"):
        build(run, said, ["slurm-cleint"])

    assert run.calls == []


def test_given_source_is_passed_and_names_the_version(run: FakeRun, said: list[str], checkout: Path) -> None:
    built = build(run, said, ["slurm-client"], source=checkout)

    argv, env = run.calls[0]
    assert f"*.contexts.given-source={checkout}" in argv
    assert (env["VERSION"], env["SOURCE"]) == ("25.05.1", "slurm-main")
    assert built[0].tags == ("slurm-testbed/slurm-client:25.05.1", "slurm-testbed/slurm-client:25.05")
    assert "source: slurm-main, which is Slurm 25.05.1; the images are tagged by that version" in said


def test_given_source_of_another_release_than_asked_is_refused(run: FakeRun, said: list[str], checkout: Path) -> None:
    with pytest.raises(UsageError, match=r"slurm-main is Slurm 25\.05\.1, and release 24\.11\.5 is asked for"):
        build(run, said, releases=[RELEASE], source=checkout)


@pytest.mark.parametrize(
    ("variable", "size", "passed"), [("CURL_CA_BUNDLE", 9, True), ("SSL_CERT_FILE", 500_001, False)]
)
def test_ca_bundle_of_the_host_is_a_build_secret(
    run: FakeRun,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
    size: int,
    passed: bool,
) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(bytes(size))
    for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(bundle))

    build(run, said, ["slurm-client"], [RELEASE])

    assert (f"*.secrets=id=ca-bundle,src={bundle}" in run.calls[0][0]) is passed
    assert any("larger than a build secret may be" in text for text in said) is not passed


# --- what a build says -----------------------------------------------------------------------------------

STEP = "[slurm-client source 2/2] RUN --mount=type=secret,id=ca A_B=$([ ! -s /x ] || echo y) /build/fetch-source"
NO_SOURCE = """\
slurm-testbed: no source of Slurm 24.11.5 could be had. Tried:
slurm-testbed:   https://example.org/slurm-24.11.5.tar.bz2: curl exited with 6
slurm-testbed:   Debian's source package slurm-wlm in trixie: its SHA-256 is e1a5, not ffff
slurm-testbed: Give one by --source."""


def plain(output: str, reason: str = 'process "sh -c x" did not complete successfully: exit code: 1') -> str:
    """The plain progress of a build whose step fails with this output."""
    lines = output.splitlines()
    other = ["#3 [base 1/1] RUN x", "#3 0.2 slurm-testbed: of another step", "#3 DONE 0.3s"]
    logged = [f"#4 {STEP}", *(f"#4 1.657 {line}" for line in lines), f"#4 ERROR: {reason}"]
    return "\n".join([*other, *logged, summary("\n".join(lines[-10:]), reason)])


def summary(output: str, reason: str) -> str:
    """How every progress ends."""
    lines = [f"1.657 {line}" for line in output.splitlines()]
    excerpt = ["Dockerfile:29", "--------------------", "  28 |     WORKDIR /src", "--------------------"]
    return "\n".join(["------", f" > {STEP}:", *lines, "------", *excerpt, f"ERROR: failed to solve: {reason}"])


def coloured(output: str) -> str:
    """The end of a terminal's progress of a build whose step fails with this output."""
    picture = "\x1b[31m => ERROR [source 2/2] RUN\n\x1b[0m => => # 1.6 slurm-testbed: no sou\n"
    return picture + "\x1b[6A\x1b[0G\x1b[?25h" + summary(output, "exit code: 1")


@pytest.fixture
def failed(run: FakeRun, said: list[str]) -> Callable[[str], BuildError]:
    """The error of a build that writes this and fails."""

    def fail(output: str) -> BuildError:
        run.ends["24.11.5"] = (1, output)
        with pytest.raises(BuildError) as error:
            build(run, said, ["slurm-client"], [RELEASE])
        return error.value

    return fail


@pytest.mark.parametrize("written", [plain, coloured])
def test_missing_source_is_told_in_the_builds_own_words(
    failed: Callable[[str], BuildError], written: Callable[[str], str]
) -> None:
    error = failed(written(NO_SOURCE))

    assert isinstance(error, NoSourceError)
    assert str(error) == (
        "no source of Slurm 24.11.5 could be had. Tried:\n"
        "  https://example.org/slurm-24.11.5.tar.bz2: curl exited with 6\n"
        "  Debian's source package slurm-wlm in trixie: its SHA-256 is e1a5, not ffff\n"
        "Hint: Give one by --source."
    )


def test_missing_part_is_told_in_the_builds_own_words(failed: Callable[[str], BuildError]) -> None:
    text = "Slurm 24.11.5 was built without auth_jwt (is libjwt-dev there?): auth_jwt.so is missing."

    assert str(failed(plain(f"a warning\nslurm-testbed: {text}"))) == text


def test_failing_compile_shows_the_steps_last_lines(failed: Callable[[str], BuildError]) -> None:
    error = failed(plain("\n".join(f"cc{number}" for number in range(60)) + "\nmake: *** Error 1"))

    assert error.message.startswith("the images of Slurm 24.11.5 could not be built: failed to solve: exit code: 1\n")
    assert "Last lines of [slurm-client source 2/2] RUN /build/fetch-source:\ncc36\n" in error.message
    assert error.message.endswith("cc59\nmake: *** Error 1")
    assert "BUILDKIT_PROGRESS=plain" in error.hint


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        (plain("E: Failed to fetch x  Temporary failure resolving 'x'"), "could not reach Debian's packages"),
        (plain("cc: fatal error: No space left on device"), "disk is full"),
        (plain("", "debian:trixie-slim: failed to resolve source metadata for x"), "--base bootstrap"),
    ],
)
def test_known_failure_has_a_hint(failed: Callable[[str], BuildError], output: str, hint: str) -> None:
    assert hint in failed(output).hint


def test_failure_without_a_step_quotes_bake(failed: Callable[[str], BuildError]) -> None:
    assert "could not be built: no builder" in str(failed("ERROR: no builder"))
    assert "docker buildx bake exited with 1" in str(failed(""))


def test_release_without_source_is_a_gap_among_all(run: FakeRun, said: list[str]) -> None:
    run.ends["22.05.8"] = (1, plain(NO_SOURCE.replace("24.11.5", "22.05.8")))

    built = build(run, said, ["slurm-client"], Releases.load().all, skip_unavailable=True)

    assert [image.name for image in built] == ["slurm-testbed/slurm-client:24.11.5"]
    assert any(text.startswith("skipped: no source of Slurm 22.05.8 could be had") for text in said)


PROGRESS = f"""\
#1 [internal] load build definition from Dockerfile
#1 DONE 0.1s
#2 [os 2/3] COPY --link build/os-setup /tmp/os-setup
#2 CACHED
#3 [slurm-client base 1/1] RUN --mount=type=cache,target=/var <<'SH' (set -eu...)
#3 1.0 Fetched
#3 DONE 12.3s
#4 [slurm-client] exporting to image
#4 DONE 0.0s
#5 {STEP}
#5 ERROR: exit code: 1
"""


def test_build_without_terminal_says_a_line_per_step_that_took_time(
    program: Callable[[str, str], Path], tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "progress").write_text(PROGRESS)
    docker_ = program("docker", f'[ "$1" = --progress=plain ] && cat {tmp_path}/progress >&2; exit 3')

    code, output = images._runner(said.append)([str(docker_)], os.environ, tmp_path)

    assert (code, output) == (3, PROGRESS.rstrip("\n"))
    assert said == [
        "   12.3 s  [slurm-client base 1/1] RUN",
        "   failed  [slurm-client source 2/2] RUN /build/fetch-source",
    ]


def test_build_with_plain_progress_passes_every_line_on(
    program: Callable[[str, str], Path], tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDKIT_PROGRESS", "plain")
    docker_ = program("docker", "echo one; echo two >&2")

    images._runner(said.append)([str(docker_)], os.environ, tmp_path)

    assert said == ["one", "two"]


def test_build_on_a_terminal_shows_bakes_own_progress_and_keeps_its_end(
    program: Callable[[str, str], Path],
) -> None:
    docker_ = program("docker", "test -t 2 && printf 'a\\033[1Ab\\n' >&2; exit 4")
    code = (
        "import os; from pathlib import Path; from slurm_testbed import images\n"
        f"print(images._runner(images._say)(['{docker_}'], os.environ, Path('.')))"
    )
    screen, theirs = pty.openpty()

    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    shown = os.read(screen, 1000)
    os.close(screen)

    assert done.stdout.strip() == str((4, "a\x1b[1Ab\n"))
    assert shown == b"a\x1b[1Ab\r\n"


def test_child_does_not_outlive_an_interrupted_block() -> None:
    with pytest.raises(KeyboardInterrupt), images._child(["sleep", "600"]) as child:
        raise KeyboardInterrupt

    assert child.returncode == -15


# --- the revision ----------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., str]:
    """Runs git in a repository of its own with one commit."""

    def git(*arguments: str) -> str:
        argv = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "images").mkdir()
    (tmp_path / "images/file").write_text("1")
    (tmp_path / "readme").touch()
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    return git


def test_revision_is_the_last_commit_of_the_images(repository: Callable[..., str], tmp_path: Path) -> None:
    first = repository("rev-parse", "HEAD")
    (tmp_path / "readme").write_text("other")
    repository("commit", "--quiet", "--all", "--message=second")

    assert images._revision(tmp_path / "images") == first


def test_revision_says_that_images_were_changed_since(repository: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "images/file").write_text("2")

    assert images._revision(tmp_path / "images") == repository("rev-parse", "HEAD") + "-dirty"


def test_revision_of_a_wheel_is_its_version(tmp_path: Path) -> None:
    assert images._revision(tmp_path) == importlib.metadata.version("slurm-testbed")
