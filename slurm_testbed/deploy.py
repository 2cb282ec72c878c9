"""Bring an application's image to nodes over SSH, so that a node has all of it or what it had before."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slurm_testbed.errors import DeployError, UsageError, tail

#: Where nodes have the images of applications: FOLDER/APP/APP.sif.
FOLDER = "/opt/apptainers/apps"
#: What an image for Apptainer begins with, after the line that runs it: https://github.com/apptainer/sif
_MAGIC = b"SIF_MAGIC"
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
#: What ssh(1) ends with when it did not reach the host, or was not let in.
_NOT_REACHED = 255
#: Seconds that a node may take to answer.
_CONNECT_SECONDS = 10
#: Says the digest of what is there; on the node, by /bin/sh.
_LOOK = 'if [ -e "$1" ]; then sha256sum < "$1"; fi'
#: Takes the image from standard input. Whatever ends it, the target is whole: the name comes last, and at once. What a
#: node that lost its power left behind goes after an hour; before, it may be another deployment's.
_TAKE = """
set -eu
target=$1 digest=$2 folder=${1%/*} name=${1##*/}
umask 022
mkdir -p "$folder"
find "$folder" -maxdepth 1 -name ".$name.*" -mmin +60 -delete
# Known before it is there, so that no moment is left in which a lost connection leaves it behind.
new=$folder/.$name.$(uname -n).$$
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM
cat > "$new"
seen=$(sha256sum < "$new")
[ "${seen%% *}" = "$digest" ] || { echo "the copy has the SHA-256 ${seen%% *}, not $digest" >&2; exit 1; }
chmod 644 "$new"
mv -f "$new" "$target"
sha256sum < "$target"
"""


@dataclass(frozen=True)
class Deployed:
    """An image on a node.

    Attributes:
        node: the node, as ssh knows it.
        path: where it is there.
        copied: False where the node had this very image already.
    """

    node: str
    path: str
    copied: bool


def deploy(
    image: Path, app: str, nodes: Sequence[str], *, ssh: Sequence[str] = ("ssh",), folder: str = FOLDER
) -> list[Deployed]:
    """Copy an application's image to nodes, and compare digests there.

    Args:
        image: an image for Apptainer, a SIF.
        app: the application's name; the image is FOLDER/APP/APP.sif on the node.
        nodes: hosts as ssh(1) knows them, also `user@host`; whoever logs in writes to the folder there.
        ssh: the command with its options, for instance `["ssh", "-F", "config"]`.
        folder: of all applications, on the nodes.

    Returns:
        One for each node, in their order.

    Raises:
        UsageError: the file is no image, or the name is none.
        DeployError: it did not come to some of the nodes: which, and why. Those have what they had before.

    Example:
        >>> deploy(Path("gedit.sif"), "gedit", ["root@viz1"])  # doctest: +SKIP
        [Deployed(node='root@viz1', path='/opt/apptainers/apps/gedit/gedit.sif', copied=True)]
    """
    if not _NAME.fullmatch(app):
        raise UsageError(f"{app!r} is no name of an application", hint="give small letters and digits: gedit")
    if not nodes:
        raise UsageError("no node is named that the image should go to", hint="name some: --nodes viz1,viz2")
    for node in nodes:
        if not node or node.startswith("-"):
            raise UsageError(f"{node!r} is no node", hint="name them as ssh knows them: --nodes viz1,viz2")
    digest = _digest(image)
    path = f"{folder}/{app}/{app}.sif"
    with ThreadPoolExecutor(min(len(nodes), 8)) as threads:
        outcomes = list(threads.map(lambda node: _outcome(image, digest, node, path, ssh), nodes))
    failed = [f"{node}: {outcome}" for node, outcome in zip(nodes, outcomes, strict=True) if isinstance(outcome, str)]
    if failed:
        raise DeployError(
            f"the image of {app} did not come to {len(failed)} of {len(nodes)} nodes:\n" + "\n".join(failed),
            hint="what was there is as it was; put it right and deploy again: nodes that have the image are quick",
        )
    return [outcome for outcome in outcomes if isinstance(outcome, Deployed)]


def _digest(image: Path) -> str:
    try:
        with image.open("rb") as file:
            if _MAGIC not in file.read(64):
                raise UsageError(
                    f"{image} is no image for Apptainer", hint="make one: invoke build --image viz-app --sif"
                )
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"the image {image} cannot be read: {error.strerror}", hint="make one: invoke build --image viz-app --sif"
        ) from None


def _outcome(image: Path, digest: str, node: str, path: str, ssh: Sequence[str]) -> Deployed | str:
    """An image on a node, or in words why it is not there."""
    done = _on(node, ssh, _LOOK, path)
    if done.returncode == 0 and done.stdout.split()[:1] == [digest]:
        return Deployed(node, path, copied=False)
    if done.returncode == 0:
        done = _on(node, ssh, _TAKE, path, digest, image=image)
    if done.returncode == 0 and done.stdout.split()[:1] == [digest]:
        return Deployed(node, path, copied=True)
    said = tail(done.stderr, 3) or f"ssh ended with {done.returncode}, and said nothing"
    return f"cannot be reached over SSH: {said}" if done.returncode == _NOT_REACHED else said


def _on(
    node: str, ssh: Sequence[str], script: str, *words: str, image: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script on a node, with the image as its standard input."""
    # Never a question: nobody would see it.
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
    command = shlex.join(["sh", "-c", script, "deploy", *words])
    with image.open("rb") if image else contextlib.nullcontext(subprocess.DEVNULL) as source:
        return subprocess.run(
            [*ssh, *options, "--", node, command], stdin=source, capture_output=True, text=True, check=False
        )
