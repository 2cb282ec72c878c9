"""Say why a build failed, from what bake wrote."""

from __future__ import annotations

import re

from slurm_testbed.errors import BuildError, NoSourceError, tail
from slurm_testbed.images.progress import short
from slurm_testbed.releases import Release

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


def explained(output: str, release: Release, code: int) -> BuildError:
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
        message += f"\nLast lines of {name}:\n{tail(chr(10).join(lines), _TAIL_LINES)}"
    for pattern, hint in _HINTS.items():
        if re.search(pattern, f"{reason}\n{message}"):
            return BuildError(message, hint=hint)
    return BuildError(message, hint="the whole log: BUILDKIT_PROGRESS=plain invoke build")


def _failed_step(text: str) -> tuple[str, list[str]]:
    """Name and output of the step that failed: all that plain progress has of it, else the last lines.

    A failing step cuts off those beside it, and BuildKit may call them failed too, and first. They say nothing.
    """
    blocks = list(_BLOCK.finditer(text))
    logs = [
        re.findall(rf"^#{number} [\d.]+ (.*)$", text, re.MULTILINE)
        for number in re.findall(r"^#(\d+) ERROR: ", text, re.MULTILINE)
    ] or [re.findall(r"^[\d.]+ (.*)$", block["lines"], re.MULTILINE) for block in blocks]
    names = [block["name"] for block in blocks if block["lines"]] or [block["name"] for block in blocks]
    return short(names[0]) if names else "", next(filter(None, logs), [])
