"""Whether the engine can pull images."""

from __future__ import annotations

import docker
import requests

REGISTRY_SECONDS = 5.0


def registry_answers(client: docker.DockerClient, *, image: str = "debian:trixie-slim") -> bool:
    """Whether the engine can reach the registry of an image, asked without pulling anything.

    Args:
        client: the engine.
        image: an image that the registry has.

    Example:
        >>> from slurm_testbed.engine import connect
        >>> registry_answers(connect(), image="nowhere.invalid/none:1")
        False
    """
    api = client.api
    # get_registry_data() has no time-out of its own, and a filtered network may never answer.
    url = f"{api.base_url}/v{api.api_version}/distribution/{image}/json"
    try:
        return api.get(url, timeout=REGISTRY_SECONDS).ok
    except requests.RequestException:
        return False
