"""What a node's GPUs do, as their makers' own tools say it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from slurm_observability.schema import GpuSample, GpuVendor

_TIMEOUT = 10
#: A tool that only plays GPUs, for tests, has this in the name of each.
STAND_IN = "stand-in"

_Value = TypeVar("_Value", int, float)


class GpuError(RuntimeError):
    """The tool failed, or its answer is not understood."""


class Gpus(ABC):
    """The GPUs of one maker.

    Args:
        tool: the path of the maker's command.
    """

    vendor: GpuVendor

    def __init__(self, tool: str) -> None:
        self.tool = tool

    def read(self) -> dict[str, GpuSample]:
        """Every GPU of the node, by its number.

        Raises:
            GpuError: the tool failed, or its answer is not understood.
        """
        try:
            done = subprocess.run(
                [self.tool, *self.arguments()], capture_output=True, text=True, timeout=_TIMEOUT, check=True
            )
        except subprocess.CalledProcessError as error:
            raise GpuError(
                f"{self.tool} failed ({error.returncode}): {(error.stderr or error.stdout).strip()}"
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GpuError(f"{self.tool}: {error}") from error
        try:
            return {gpu.gpu_id: gpu for gpu in self.parse(done.stdout)}
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise GpuError(f"{self.tool}: its answer is not understood: {error!r}") from error

    @abstractmethod
    def arguments(self) -> list[str]:
        """What the tool is asked."""

    @abstractmethod
    def parse(self, text: str) -> list[GpuSample]:
        """What the tool answers."""


class NvidiaGpus(Gpus):
    """NVIDIA's, by nvidia-smi: https://docs.nvidia.com/deploy/nvidia-smi/index.html"""

    vendor: GpuVendor = "nvidia"

    def arguments(self) -> list[str]:
        what = "index,name,utilization.gpu,memory.used,power.draw,temperature.gpu"
        return [f"--query-gpu={what}", "--format=csv,noheader,nounits"]

    def parse(self, text: str) -> list[GpuSample]:
        rows = [[field.strip() for field in row] for row in csv.reader(text.splitlines()) if row]
        return [
            GpuSample(
                gpu_id=str(int(index)),
                gpu_vendor=self.vendor,
                # In place of a number: [N/A], [Not Supported], [Unknown Error].
                utilization_percent=_number(utilization),
                memory_used_bytes=None if (mib := _number(memory)) is None else int(mib * 2**20),
                power_watts=_number(power),
                temperature_celsius=_number(temperature),
                stand_in=STAND_IN in name,
            )
            for index, name, utilization, memory, power, temperature in rows
        ]


class AmdGpus(Gpus):
    """AMD's, by rocm-smi: https://rocm.docs.amd.com/projects/rocm_smi_lib/en/latest/

    The names of its answers differ between its versions and between cards, their beginnings do not.
    """

    vendor: GpuVendor = "amd"

    def arguments(self) -> list[str]:
        return ["--showproductname", "--showuse", "--showmeminfo", "vram", "--showpower", "--showtemp", "--json"]

    def parse(self, text: str) -> list[GpuSample]:
        # Warnings may stand before it.
        cards: dict[str, dict[str, Any]] = json.loads(text[text.index("{") :])
        return [
            GpuSample(
                gpu_id=card.removeprefix("card"),
                gpu_vendor=self.vendor,
                utilization_percent=_first(values, r"GPU use \(%\)", float),
                memory_used_bytes=_first(values, r"VRAM Total Used Memory \(B\)", int),
                power_watts=_first(values, r"(Average|Current Socket) Graphics Package Power \(W\)", float),
                temperature_celsius=_first(values, r"Temperature \(Sensor (edge|junction)\) \(C\)", float),
                stand_in=any(STAND_IN in str(value) for value in values.values()),
            )
            for card, values in sorted(cards.items())
            if card.startswith("card")
        ]


def find_gpus() -> list[Gpus]:
    """A reader for each maker whose tool is on the PATH."""
    kinds: dict[str, Callable[[str], Gpus]] = {"nvidia-smi": NvidiaGpus, "rocm-smi": AmdGpus}
    found = ((shutil.which(tool), kind) for tool, kind in kinds.items())
    return [kind(tool) for tool, kind in found if tool]


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None


def _first(values: dict[str, Any], name: str, kind: Callable[[str], _Value]) -> _Value | None:
    """The value of the first name that fits and that is a number."""
    for key, value in values.items():
        if re.fullmatch(name, key) and _number(str(value)) is not None:
            return kind(str(value))
    return None
