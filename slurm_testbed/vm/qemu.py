"""QEMU: with KVM where a probe shows that it works, else with emulation; how the machine is started."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from slurm_testbed.vm import recipe
from slurm_testbed.vm.disk import Image
from slurm_testbed.vm.tools import Tools

Accelerator = Literal["kvm", "tcg"]

#: What the guest's kernel says at its very end when it is started without any disk.
_CAME_TO_ITS_END = "Unable to mount root fs"
#: A kernel without a disk gives up within a second or two under a KVM that works.
_PROBE_SECONDS = 15
_MIB = 1024 * 1024
#: Enough for a cluster with accounting beside one with cgroups.
_MEMORY_MIB = 6144


def probe(tools: Tools, image: Image, *, device: Path = Path("/dev/kvm")) -> tuple[Accelerator, str]:
    """Find out by trying whether KVM runs the guest's kernel; a device that is there proves nothing.

    Args:
        tools: with QEMU.
        image: whose kernel is tried.
        device: of KVM.

    Returns:
        The accelerator, and why it is not KVM.
    """
    if not device.exists():
        return "tcg", f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return "tcg", f"this user may not use {device}"
    arch = recipe.processor()
    argv = [*tools.qemu(), *_processor("kvm"), "-machine", arch.machine, "-m", "256"]
    argv += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]
    argv += ["-kernel", str(image.kernel), "-append", f"console={arch.console} panic=-1"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv, env=tools.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            process.wait(_PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
    if _CAME_TO_ITS_END in said:
        return "kvm", ""
    last = said.strip().splitlines()[-1:] or ["it says nothing"]
    return "tcg", f"a kernel does not start under KVM here: {last[0].strip()[:120]}"


def _processor(accelerator: Accelerator) -> list[str]:
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", recipe.processor().cpu]


def memory() -> int:
    """MiB of the machine: half of this machine's, but not more than are of use."""
    return min(_MEMORY_MIB, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB // 2)


def command(
    tools: Tools, image: Image, accelerator: Accelerator, *, data: Path, console: Path, port: int, credential: str
) -> list[str]:
    """QEMU's command line.

    Args:
        tools: with QEMU.
        image: the guest; its disk is only read, and what the guest writes on it is gone when it ends.
        accelerator: as `probe` found.
        data: the disk of the engine's images, which stays.
        console: a file for what the guest says on its serial port.
        port: of 127.0.0.1, that leads to the guest's SSH.
        credential: `NAME:BASE64` for the guest's systemd; it is public (systemd.system-credentials(7)).
    """
    arch = recipe.processor()
    kernel = f"root=/dev/vda rw console={arch.console} quiet mitigations=off"
    argv = [*tools.qemu(), "-name", "slurm-testbed", "-machine", arch.machine, *_processor(accelerator)]
    argv += ["-smp", str(os.cpu_count() or 1), "-m", str(memory())]
    argv += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", f"file:{_escaped(console)}"]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    argv += ["-append", f"{kernel} systemd.set_credential_binary={credential}"]
    argv += _disk("system", image.system, "snapshot=on") + _disk("data", data, "discard=unmap")
    # Cut off from this machine and its network, both ways, but for that one port.
    argv += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    argv += ["-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"]
    return argv


def _disk(name: str, path: Path, option: str) -> list[str]:
    # Nothing on them must outlive a crash of this machine, so no write waits for the real disk.
    drive = f"if=none,id={name},file={_escaped(path)},format=raw,cache=unsafe,{option}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def spawn(argv: list[str], tools: Tools, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start QEMU in a session of its own: Ctrl-C and the end of the terminal do not reach it.

    Args:
        argv: from `command`.
        tools: whose environment it gets.
        folder: for the file in which QEMU keeps what the guest writes on the system's disk.
        log: a file for what QEMU says.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            argv,
            env={**tools.environment(), "TMPDIR": str(folder)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
