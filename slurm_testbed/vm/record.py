"""Which machine runs: kept in a file, so that another process finds it, and a crash leaves no second one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from slurm_testbed.engine.processes import end_process, live_process
from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.vm import cache

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_END_SECONDS = 20


def folder() -> Path:
    """The folder of the machine that runs: key, sockets, logs and this record."""
    path = cache.folder() / "run"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def boot() -> str:
    """This start of this machine: process ids of another one mean nothing."""
    return _BOOT.read_text().strip()


@dataclass(frozen=True)
class Record:
    """A machine that was started.

    Attributes:
        id: a random name; the guest's engine carries it as a label.
        pid: of QEMU.
        started: when that process started, so that another one with its number is not taken for it.
        boot: the start of this machine that it belongs to.
        port: of 127.0.0.1, that leads to its SSH.
        accelerator: `kvm` or `tcg`.
        image: digest of what the guest is made of.
        speed: how many times slower than this machine it is; 0 until it is ready.
        stays: whether it outlives those who use it, for somebody asked for itself.
    """

    id: str
    pid: int
    started: str
    boot: str
    port: int
    accelerator: str
    image: str
    speed: float = 0.0
    stays: bool = True

    @classmethod
    def load(cls) -> Self | None:
        """The machine that was started last, whether it still runs or not; None after an orderly end."""
        path = folder() / "vm.json"
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise SlurmTestbedError(
                f"{path} cannot be read: {error}", hint="end its QEMU, and remove the file"
            ) from error

    def save(self) -> None:
        """Write it in one step."""
        path = folder() / "vm.json"
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(asdict(self)) + "\n")
        aside.replace(path)

    def ready(self, speed: float) -> Self:
        """The same machine, ready and measured; written."""
        made = replace(self, speed=speed)
        made.save()
        return made

    def kept(self) -> Self:
        """The same machine, to stay when nobody uses it any more; written."""
        made = replace(self, stays=True)
        made.save()
        return made

    @property
    def of_this_boot(self) -> bool:
        """Whether this machine has not been started again since: what was written to the disk is all there."""
        return self.boot == boot()

    @property
    def lives(self) -> bool:
        """Whether its QEMU runs."""
        process = live_process(self.pid) if self.of_this_boot else None
        return process is not None and process[1] == self.started

    def end(self) -> None:
        """End its QEMU, if it runs.

        Raises:
            NotReadyError: it did not end in time.
        """
        if self.lives:
            end_process(self.pid, deadline=_END_SECONDS)


def forget() -> None:
    """Remove what belongs to a machine that has ended: its record, key and sockets; its logs stay."""
    for name in ("vm.json", "key", "key.pub", "known_hosts", "docker.sock", "ssh"):
        (folder() / name).unlink(missing_ok=True)
