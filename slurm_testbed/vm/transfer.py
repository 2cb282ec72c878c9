"""Images from this machine's engine to the virtual machine's, each only once."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

import docker
import docker.errors

from slurm_testbed import engine
from slurm_testbed.errors import EngineError
from slurm_testbed.vm.machine import VirtualMachine

#: What makes an image what it is, whatever its engine's store: the id of one image differs between stores.
_PARTS = ("Architecture", "Created")
_CONFIG = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "User", "WorkingDir")


def content(client: docker.DockerClient, name: str) -> Mapping[str, object] | None:
    """What an image is: its layers by digest, and its configuration; None where it is not there.

    Args:
        client: the engine.
        name: the image.
    """
    try:
        attrs = client.images.get(name).attrs
    except docker.errors.ImageNotFound:
        return None
    config = attrs.get("Config") or {}
    return {
        "layers": attrs["RootFS"].get("Layers"),
        **{part: attrs.get(part) for part in _PARTS},
        **{part: config.get(part) or None for part in _CONFIG},
    }


def load(
    machine: VirtualMachine,
    names: Sequence[str],
    *,
    host: docker.DockerClient,
    say: Callable[[str], None] = engine.THIS.say,
) -> list[str]:
    """Copy those images that the machine's engine has not, or has otherwise.

    Args:
        machine: the virtual machine.
        names: images that this machine's engine has.
        host: this machine's engine.
        say: told what is copied, and how long it took.

    Returns:
        What was copied.

    Raises:
        EngineError: an image is not here, or an engine refused.
    """
    with contextlib.closing(machine.client()) as guest:
        wanted = {name: content(host, name) for name in names}
        if missing := [name for name, found in wanted.items() if found is None]:
            raise EngineError(f"there is no image {', '.join(missing)}", hint="make it: invoke build")
        due = [name for name, found in wanted.items() if content(guest, name) != found]
        if not due:
            return []
        begun = time.monotonic()
        say(f"copying into the virtual machine: {', '.join(due)}")
        _copy(machine, due)
        if wrong := [name for name in due if content(guest, name) != wanted[name]]:
            raise EngineError(f"{', '.join(wrong)} came into the virtual machine as something else")
        # Earlier builds of the same names: its disk would fill.
        guest.images.prune(filters={"dangling": True})
        say(f"copied after {time.monotonic() - begun:.0f} s")
    return due


def _copy(machine: VirtualMachine, names: Sequence[str]) -> None:
    """All in one archive: layers that images share go over once."""
    program = engine.THIS.which("docker")
    if not program:
        raise EngineError("the command docker is not here, and it copies images", hint="install docker-cli")
    pipe = subprocess.PIPE
    with (
        subprocess.Popen([program, "save", *names], env=engine.environment(), stdout=pipe, stderr=pipe) as save,
        subprocess.Popen(
            [program, "load", "--quiet"], env=machine.environment(), stdin=save.stdout, stdout=pipe, stderr=pipe
        ) as load_,
    ):
        assert save.stdout
        save.stdout.close()  # ours: so that save ends when load does
        said = load_.communicate()[1]
        assert save.stderr
        said = save.stderr.read() + said
    if save.returncode or load_.returncode:
        raise EngineError(
            f"images could not be copied into the virtual machine: {said.decode(errors='replace').strip()}"
        )
