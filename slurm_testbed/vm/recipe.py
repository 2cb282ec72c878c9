"""What the virtual machine is made of, and the digest by which it is cached."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path

from slurm_testbed.errors import SlurmTestbedError

#: Debian's suite, of the guest and of the QEMU that runs it: QEMU 7.2 of the one before crashed guests under TCG.
SUITE = "trixie"
GUEST = Path(__file__).parent / "guest"
#: Laid over the guest before its kernel is installed, for they decide what its initrd holds, and again at the end.
_FILES = "files"


@dataclass(frozen=True)
class Processor:
    """What differs between processor families.

    Attributes:
        machine: QEMU's machine type.
        console: the guest's name for its serial port.
        cpu: the CPU model under TCG, without what it emulates slowly or wrongly.
        package: Debian's package of QEMU.
        kernel: Debian's package of a small kernel.
    """

    machine: str
    console: str
    cpu: str
    package: str
    kernel: str


_PROCESSORS = {
    "x86_64": Processor(
        "q35,usb=off,vmport=off", "ttyS0", "max,-la57,-svm", "qemu-system-x86", "linux-image-cloud-amd64"
    ),
    "aarch64": Processor("virt", "ttyAMA0", "max", "qemu-system-arm", "linux-image-cloud-arm64"),
}


def processor(machine: str = "") -> Processor:
    """What this machine's processor family needs.

    Args:
        machine: the family by the kernel's name; this machine's own by default.

    Raises:
        SlurmTestbedError: there is no recipe for it.

    Example:
        >>> processor("x86_64").console
        'ttyS0'
    """
    name = machine or platform.machine()
    if name not in _PROCESSORS:
        raise SlurmTestbedError(
            f"there is no virtual machine for {name} processors, only for {', '.join(_PROCESSORS)}",
            hint="cgroup v2 is tested without it where the engine's host has it: invoke test",
        )
    return _PROCESSORS[name]


#: Programs that run here, from Debian's packages: QEMU, and a mke2fs that takes a tar archive (1.47.1, libarchive).
TOOL_PACKAGES = ("dash", "e2fsprogs", "ipxe-qemu", "libarchive13t64", "seabios")

#: What the guest has beside Debian's essential packages and its kernel.
GUEST_PACKAGES = (
    "dbus",  # dockerd's systemd cgroup driver asks systemd through it
    "docker.io",
    "iproute2",
    "iptables",
    "kmod",
    "nfs-kernel-server",
    "openssh-server",
    "systemd-sysv",
    "udev",
)

#: Left out: nobody reads them there.
EXCLUDED = ("doc", "info", "locale", "man")


def tool_packages() -> list[str]:
    """Packages whose programs run on this machine."""
    return sorted([processor().package, *TOOL_PACKAGES])


def guest_packages() -> list[str]:
    """Packages of the guest."""
    return sorted([processor().kernel, *GUEST_PACKAGES])


def guest_files() -> bytes:
    """The guest's own files as a tar archive that is the same for the same files: root's, without times."""
    root = GUEST / _FILES
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            member = tarfile.TarInfo(str(path.relative_to(root)))
            member.mode = 0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644
            if path.is_dir():
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                data = path.read_bytes()
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def customize_script() -> str:
    """What is done to the guest when all is installed: a shell script that gets the guest's folder."""
    return (GUEST / "customize").read_text()


def tools_digest() -> str:
    """Digest of what the tools are made of.

    Example:
        >>> len(tools_digest())
        16
    """
    return _digest(SUITE, *tool_packages())


def image_digest() -> str:
    """Digest of what the guest is made of.

    Example:
        >>> image_digest() == image_digest() != tools_digest()
        True
    """
    return _digest(SUITE, *guest_packages(), *EXCLUDED, guest_files(), customize_script())


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]
