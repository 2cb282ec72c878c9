"""Where the hub is: for its servers the address of its Service, which stays when the hub's pod is another one.

The proxy is in the hub's pod, and a pod does not reach itself by its Service on every network.
"""

import os

c = get_config()  # noqa: F821  # traitlets' own, in configuration files

_address = os.environ["JUPYTERHUB_IP"]
if _address.startswith("$("):
    raise SystemExit(
        f"Kubernetes did not set {_address[2:-1]}: the Service was not there when this pod started; "
        "the next start has it"
    )
c.JupyterHub.hub_connect_url = "http://127.0.0.1:8081"
c.Spawner.hub_connect_url = f"http://{_address}:8081"
