"""The hub: where it listens, its proxy, its database, its secrets."""

import os
import socket
from pathlib import Path

import jupyterhub_slurmspawner  # noqa: F401  # also of stock batchspawner a server sets its port, and nothing else

c = get_config()  # noqa: F821  # traitlets' own, in configuration files

_state = Path("/var/lib/jupyterhub")
_host = os.environ.get("JUPYTERHUB_IP") or socket.gethostname()

# Servers on the nodes speak to the hub, so it listens for them too.
c.JupyterHub.hub_bind_url = "http://0.0.0.0:8081"
c.JupyterHub.hub_connect_url = f"http://{_host}:8081"

# The proxy is a process of its own, and servers are jobs: both go on while the hub restarts.
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = os.environ.get("JUPYTERHUB_PROXY_API_URL", "http://127.0.0.1:8001")
c.ConfigurableHTTPProxy.auth_token = Path("/var/lib/jupyterhub-proxy/token").read_text()
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False

c.JupyterHub.cookie_secret_file = str(_state / "cookie-secret")
c.JupyterHub.db_url = os.environ.get("JUPYTERHUB_DB_URL") or f"sqlite:///{_state}/jupyterhub.sqlite"

# A server's first answer: on a busy node JupyterLab alone is loaded for longer than the 30 s that are the default.
c.Spawner.http_timeout = 120

# What differs from the pages of the hub and of jupyterhub_moss.
c.JupyterHub.template_paths = ["/usr/share/slurm-testbed/templates"]

# For programs that start and stop servers of all users: tests, for example.
c.JupyterHub.services = [{"name": "slurm-testbed", "api_token": (_state / "api-token").read_text()}]
c.JupyterHub.load_roles = [
    {
        "name": "slurm-testbed",
        "scopes": [
            "access:servers",
            "admin:server_state",
            "admin:servers",
            "admin:users",
            "proxy",
            "read:hub",
            "shutdown",
            "tokens",
        ],
        "services": ["slurm-testbed"],
    }
]
