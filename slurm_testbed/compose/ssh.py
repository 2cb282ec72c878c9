"""How ssh(1) reaches the hosts of a cluster that run sshd."""

from __future__ import annotations

import os
from pathlib import Path

from slurm_testbed.slurm import Slurm

#: Makes a key, of which nothing is left on the host; the public part is the first line.
_MAKE = """
set -eu
umask 077
folder=$(mktemp -d)
ssh-keygen -q -t ed25519 -N '' -C slurm-testbed -f "$folder/key"
cat "$folder/key.pub" "$folder/key"
rm -rf "$folder"
"""
#: Lets the key in; homes may be shared, and have it already.
_ALLOW = """
set -eu
umask 077
mkdir -p ~/.ssh
grep -qsxF "$1" ~/.ssh/authorized_keys || echo "$1" >> ~/.ssh/authorized_keys
"""
#: The host's own key, which is there before sshd listens.
_KNOW = """
. /usr/lib/slurm-testbed/common.sh
await "sshd to listen" "see its log." listening 22
cat /etc/ssh/ssh_host_ed25519_key.pub
"""


def ssh_config(slurm: Slurm, user: str, folder: Path) -> Path:
    """Write a configuration for ssh(1), with a new key of a user, for all hosts of a cluster that run sshd.

    Args:
        slurm: the cluster.
        user: who logs in.
        folder: where to; it is made for the caller alone.

    Returns:
        The configuration's path. Hosts have their names in it.

    Raises:
        UsageError: no host runs sshd.
        CommandError: a host does not take the key.

    Example:
        >>> config = ssh_config(slurm, "root", Path("keys"))  # doctest: +SKIP
        >>> subprocess.run(["ssh", "-F", config, "n1", "hostname"], check=True)  # doctest: +SKIP
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    first = slurm.host_of("sshd")
    home = {"HOME": slurm.home(user)}
    public, _, private = slurm.run(["sh", "-c", _MAKE], host=first, user=user, env=home).stdout.partition("\n")
    _write_private(folder / "id_ed25519", private)
    hosts, known = "", ""
    for host in (host.name for host in slurm.substrate.hosts() if "sshd" in host.daemons):
        slurm.run(["sh", "-c", _ALLOW, "allow", public], host=host, user=user, env=home)
        key = slurm.run(["bash", "-c", _KNOW], host=host).stdout.split()[:2]
        address, port = slurm.substrate.endpoint(host, 22)
        hosts += f"Host {host}\n  HostName {address}\n  Port {port}\n"
        known += f"[{address}]:{port} {' '.join(key)}\n"
    (folder / "known_hosts").write_text(known)
    config = folder / "config"
    named = str(folder).replace("%", "%%")
    config.write_text(
        f'{hosts}Host *\n  User {user}\n  IdentityFile "{named}/id_ed25519"\n'
        f'  IdentitiesOnly yes\n  UserKnownHostsFile "{named}/known_hosts"\n'
    )
    return config


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
