"""What Prometheus scrapes: the jobs and nodes of this moment, under the names of the integration guide.

The series of jobs and nodes are written here, for prometheus_client needs four times as long for a thousand jobs, most
of it to check the same names for each sample. Its own text is what a test compares with.
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, generate_latest

from slurm_observability.schema import JobSample
from slurm_observability.service.audit import now
from slurm_observability.service.board import Board

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class _Gauge:
    """A family of series, as it is written."""

    def __init__(self, name: str, help_text: str) -> None:
        self._start = f"{name}{{"
        self._lines = [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]

    def add(self, labels: str, value: float | None) -> None:
        """What could not be read has no series; a zero would be a lie."""
        if value is not None:
            self._lines.append(f"{self._start}{labels}}} {float(value)!r}")

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


class Metrics:
    """What a service shows to Prometheus.

    Args:
        board: what is true now.

    Example:
        >>> b"# TYPE hpc_node_job_count gauge" in Metrics(Board()).text()
        True
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._registry = CollectorRegistry()
        self.events = Counter(
            "slurm_observability_events",
            "Reports of events that were taken, repeats left out.",
            ["kind", "source"],
            registry=self._registry,
        )
        self.samples = Counter(
            "slurm_observability_samples", "Samples of agents that were taken.", registry=self._registry
        )

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        families = [*self._jobs(), *self._nodes()]
        return "".join(family.text() for family in families).encode() + generate_latest(self._registry)

    def _jobs(self) -> Sequence[_Gauge]:
        runtime = _Gauge("hpc_job_runtime_seconds", "Time that the job has run, without suspensions.")
        cpu = _Gauge("hpc_job_cpu_usage_percent", "CPU time used, of the CPUs of the job on the node, 0 to 100.")
        memory = _Gauge("hpc_job_memory_usage_bytes", "Memory that the kernel charges to the job.")
        gpu = _Gauge("hpc_job_gpu_usage_percent", "Utilization, mean of the GPUs of the job on the node, 0 to 100.")
        utilization = _Gauge("hpc_job_gpu_device_utilization_percent", "Utilization of a GPU, 0 to 100.")
        device_memory = _Gauge("hpc_job_gpu_device_memory_used_bytes", "Memory used on a GPU.")
        power = _Gauge("hpc_job_gpu_device_power_watts", "Power that a GPU draws.")
        temperature = _Gauge("hpc_job_gpu_device_temperature_celsius", "Temperature of a GPU.")
        at = now()
        # Two runs that differ in their cluster only would be one series, twice: Prometheus refuses all then.
        known: set[tuple[int, str]] = set()
        for run, node, sample in self._board.readings(at):
            if (run.job_id, node) in known:
                continue
            known.add((run.job_id, node))
            place = f'job_id="{run.job_id}",node="{_escaped(node)}"'
            labels = f'{place},user="{_escaped(run.user)}"'
            runtime.add(labels, run.seconds(at))
            if sample is None:
                continue
            cpu.add(labels, sample.cpu_usage_percent)
            memory.add(labels, sample.memory_usage_bytes)
            gpu.add(labels, _mean_utilization(sample))
            for one in sample.gpus:
                device = f'gpu_id="{_escaped(one.gpu_id)}",gpu_vendor="{one.gpu_vendor}",{place}'
                utilization.add(device, one.utilization_percent)
                device_memory.add(device, one.memory_used_bytes)
                power.add(device, one.power_watts)
                temperature.add(device, one.temperature_celsius)
        return runtime, cpu, memory, gpu, utilization, device_memory, power, temperature

    def _nodes(self) -> Sequence[_Gauge]:
        cpu = _Gauge("hpc_node_cpu_usage_percent", "CPU time used, of all CPUs, 0 to 100.")
        memory = _Gauge("hpc_node_memory_usage_bytes", "Memory used: total minus available.")
        jobs = _Gauge("hpc_node_job_count", "Jobs that run on the node.")
        at = now()
        for name, seen in {name: seen for (_, name), seen in self._board.nodes().items()}.items():
            if not seen.silent(at):
                labels = f'node="{_escaped(name)}"'
                cpu.add(labels, seen.sample.cpu_usage_percent)
                memory.add(labels, seen.sample.memory_usage_bytes)
                jobs.add(labels, seen.sample.job_count)
        return cpu, memory, jobs


def _escaped(value: str) -> str:
    return value.translate(_ESCAPES)


def _mean_utilization(sample: JobSample) -> float | None:
    read = [gpu.utilization_percent for gpu in sample.gpus if gpu.utilization_percent is not None]
    return sum(read) / len(read) if read else None
