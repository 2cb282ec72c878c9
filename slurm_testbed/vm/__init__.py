"""A virtual machine with cgroup v2 and an NFS server: just another engine, for hosts that have neither."""

from slurm_testbed.vm.machine import Place, VirtualMachine, find, place_of, running, start, stop
from slurm_testbed.vm.transfer import load

__all__ = ["Place", "VirtualMachine", "find", "load", "place_of", "running", "start", "stop"]
