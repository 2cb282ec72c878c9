"""Where servers reach the hub: the address of its Service, which stays when the hub's pod is another one."""

import os

if os.environ["JUPYTERHUB_IP"].startswith("$("):
    raise SystemExit(
        f"Kubernetes did not set {os.environ['JUPYTERHUB_IP'][2:-1]}: the Service was not there when this pod started; "
        "the next start has it"
    )
