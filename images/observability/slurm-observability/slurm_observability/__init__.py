"""What Slurm jobs use, from start to end: a service, and an agent for each node that tells it.

The halves share nothing but `slurm_observability.schema`: a node does not install what the service needs.
"""

from __future__ import annotations

__version__ = "0.1.0"
