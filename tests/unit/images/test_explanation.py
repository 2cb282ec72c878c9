"""Images: what a failed build says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from slurm_testbed.errors import BuildError, NoSourceError
from slurm_testbed.releases import Releases
from tests.unit.images.conftest import RELEASE, STEP, FakeRun, build

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


def beside_one_cut_off(output: str) -> str:
    """The plain progress of a build whose failing step has BuildKit cut off another, and name that one first."""
    cut_off = "#2 [viz-app internal] load build context\n#2 ERROR: rpc error: error reading from server: EOF\n"
    head, blocks, end = plain(output).partition("------\n")
    return cut_off + head + "------\n > [viz-app internal] load build context:\n------\n" + blocks + end


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


@pytest.mark.parametrize("written", [plain, beside_one_cut_off, coloured])
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


@pytest.mark.parametrize("written", [plain, beside_one_cut_off])
def test_failing_compile_shows_the_steps_last_lines(
    failed: Callable[[str], BuildError], written: Callable[[str], str]
) -> None:
    error = failed(written("\n".join(f"cc{number}" for number in range(60)) + "\nmake: *** Error 1"))

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

    known = Releases.load()
    both = [known.find("22.05"), known.find("24.11")]

    built = build(run, said, ["slurm-client"], both, skip_unavailable=True)

    assert [image.name for image in built] == ["slurm-testbed/slurm-client:24.11.5"]
    assert any(text.startswith("skipped: no source of Slurm 22.05.8 could be had") for text in said)
