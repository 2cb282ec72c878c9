"""Programs of the guest's Debian that run on this machine, whatever its own distribution: QEMU and mke2fs."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from slurm_testbed.errors import BuildError
from slurm_testbed.vm import cache, recipe
from slurm_testbed.vm.bootstrap import mmdebstrap


@dataclass(frozen=True)
class Tools:
    """A folder into which packages were unpacked; nothing of it is installed.

    Attributes:
        root: the folder.
    """

    root: Path

    def command(self, program: str) -> list[str]:
        """How to run a program: by its own loader and libraries, because this machine's may be older.

        Args:
            program: its path below the folder, e.g. `usr/sbin/mke2fs`.

        Raises:
            BuildError: the packages do not have it.
        """
        path = self.root / program
        # Debian keeps the loader beside the libraries of its architecture.
        loader = next(self.root.glob("usr/lib/*/ld-linux*.so.*"), None)
        if loader is None or not path.exists():
            raise BuildError(f"Debian's packages in {self.root} have no {path if loader else 'loader'}")
        return [str(loader), "--library-path", str(loader.parent), "--argv0", path.name, str(path)]

    def qemu(self) -> list[str]:
        """How to run the QEMU that emulates this machine's own processor family."""
        argv = self.command(f"usr/bin/qemu-system-{platform.machine()}")
        for firmware in ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"):
            argv += ["-L", str(self.root / firmware)]
        return argv

    def environment(self) -> Mapping[str, str]:
        """What the programs read of the environment: their own settings instead of this machine's."""
        return {"MKE2FS_CONFIG": str(self.root / "etc/mke2fs.conf"), "PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def get(say: Callable[[str], None]) -> Tools:
    """The tools, unpacked now if they are not in the cache.

    Args:
        say: told when that takes time.

    Raises:
        BuildError: the packages cannot be had.
    """
    target = cache.folder() / f"tools-{recipe.tools_digest()}"
    if not target.exists():
        started = time.monotonic()
        say(f"unpacking QEMU from Debian {recipe.SUITE}'s packages into {target} (once)")
        with cache.made_aside(target) as aside:
            _unpack(aside)
            Tools(aside).qemu()  # before it is taken for complete
        say(f"QEMU is unpacked after {time.monotonic() - started:.0f} s")
    return Tools(target)


def _unpack(folder: Path) -> None:
    """Not by mmdebstrap into the folder itself: without root the files would belong to nobody whom we are."""
    archive = folder / "packages.tar"
    mmdebstrap("extract", recipe.tool_packages(), archive)
    argv = ["tar", "--extract", f"--file={archive}", f"--directory={folder}", "--no-same-owner", "--exclude=./dev/*"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"QEMU's packages could not be unpacked: {done.stderr.strip()}")
    archive.unlink()
