"""The guest's disks: the system, built once and never written to, and a place for the engine's images."""

from __future__ import annotations

import re
import shlex
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from slurm_testbed.errors import BuildError
from slurm_testbed.vm import cache, recipe
from slurm_testbed.vm.bootstrap import mmdebstrap
from slurm_testbed.vm.tools import Tools

#: Sizes of the file systems; the files are sparse and take what is written.
SYSTEM_SIZE = "8G"
DATA_SIZE = "40G"


@dataclass(frozen=True)
class Image:
    """A guest that can be started.

    Attributes:
        folder: in the cache; its name ends with the digest of what went in.
    """

    folder: Path

    @property
    def digest(self) -> str:
        """Digest of what the guest is made of."""
        return self.folder.name.rpartition("-")[2]

    @property
    def system(self) -> Path:
        """The disk with the guest's system."""
        return self.folder / "system.ext4"

    @property
    def kernel(self) -> Path:
        """The guest's kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The guest's initial file system."""
        return self.folder / "initrd"


def get(tools: Tools, say: Callable[[str], None]) -> Image:
    """The guest, built now if it is not in the cache.

    Args:
        tools: with mke2fs.
        say: told when that takes time.

    Raises:
        BuildError: the packages cannot be had, or the disk cannot be made.
    """
    target = cache.folder() / f"image-{recipe.image_digest()}"
    if not target.exists():
        started = time.monotonic()
        say(f"building the virtual machine's disk from Debian {recipe.SUITE}'s packages (once)")
        with cache.made_aside(target) as aside:
            _build(tools, Image(aside))
        say(f"the disk is built after {time.monotonic() - started:.0f} s")
    return Image(target)


def _build(tools: Tools, image: Image) -> None:
    with tempfile.TemporaryDirectory(dir=image.folder) as scratch:
        files, system = Path(scratch, "files.tar"), Path(scratch, "system.tar")
        files.write_bytes(recipe.guest_files())
        put = f"tar-in {shlex.quote(str(files))} /"
        mmdebstrap(
            "minbase",
            recipe.guest_packages(),
            system,
            *(f"--dpkgopt=path-exclude=/usr/share/{kind}/*" for kind in recipe.EXCLUDED),
            # First, for the initrd, which is made when the kernel is installed; then over what packages wrote.
            f"--essential-hook={put}",
            f"--customize-hook={put}",
            f"--customize-hook={recipe.customize_script()}",  # its text: a file of ours may be out of its reach
        )
        _pick_kernel(system, image)
        make_filesystem(tools, image.system, SYSTEM_SIZE, label="system", content=system)


def _pick_kernel(system: Path, image: Image) -> None:
    """Copy kernel and initrd out of the archive: QEMU loads them itself."""
    wanted = {r"(\./)?boot/vmlinuz-.+": image.kernel, r"(\./)?boot/initrd\.img-.+": image.initrd}
    with tarfile.open(system) as archive:
        for member in archive:
            for pattern, target in wanted.items():
                if member.isfile() and re.fullmatch(pattern, member.name):
                    target.write_bytes(cast(IO[bytes], archive.extractfile(member)).read())
    for target in wanted.values():
        if not target.exists():
            raise BuildError(f"the virtual machine's kernel package has no {target.name}")


def make_filesystem(tools: Tools, path: Path, size: str, *, label: str, content: Path | None = None) -> None:
    """Make a sparse file with an ext4 file system.

    Args:
        tools: with mke2fs.
        path: the file.
        size: in the words of truncate(1).
        label: by which the guest finds it.
        content: an archive with what it holds at first.

    Raises:
        BuildError: with what mke2fs said.
    """
    path.unlink(missing_ok=True)
    argv = tools.command("usr/sbin/mke2fs")
    argv += ["-q", "-t", "ext4", "-L", label, "-E", "lazy_itable_init=1,lazy_journal_init=1"]
    argv += [*(["-d", str(content)] if content else []), str(path), size]
    done = subprocess.run(argv, env=tools.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        path.unlink(missing_ok=True)
        raise BuildError(f"mke2fs could not make the virtual machine's disk: {done.stderr.strip()}")
