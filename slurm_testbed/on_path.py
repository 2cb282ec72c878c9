"""Slurm's commands on the caller's own PATH: each runs in the cluster, as the caller, in the caller's folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slurm_testbed import copies
from slurm_testbed.errors import CommandError, EngineError, UsageError, tail
from slurm_testbed.slurm import Slurm
from slurm_testbed.substrate import Attach

#: The commands that users and their programs call: https://slurm.schedmd.com/man_index.html
COMMANDS = (
    "sacct sacctmgr salloc sattach sbatch sbcast scancel scontrol sdiag sinfo sprio squeue sreport srun sshare "
    "sstat strigger"
).split()

#: Variables that describe the caller's machine, or another Slurm that it has, and would break a command in the cluster.
LOCAL_VARIABLES = (
    "HOME HOSTNAME LD_LIBRARY_PATH LD_PRELOAD OLDPWD PATH PWD PYTHONHOME PYTHONPATH SHELL SHLVL TMPDIR VIRTUAL_ENV _ "
    "SLURM_CLUSTERS SLURM_CONF SLURM_CONF_SERVER SLURM_JWT"
).split()

#: A folder that the container does not share is copied around each command; more than this is a mistake.
COPY_LIMIT_MIB = 64

# The value of a variable never stands in an argument list, where other users would see it: --env NAME takes
# it from the environment. The command runs beside us, so that a signal can be passed on to it.
_SCRIPT = r"""#!/bin/sh
# A command of Slurm, run in the cluster as the caller in the caller's folder. Written by slurm_testbed.on_path.
set -u
command=$(basename "$0") pid={pids}/$$
{exports}
# The folder's own name: the cluster knows no other that leads to it.
cd -P . || exit
case "$PWD/" in {patterns}) ;; *)
  echo "$command: the cluster sees" {roots} "and what is below; this is $PWD. Call on_path() for this folder." >&2
  exit 1 ;;
esac
# sbatch reads the script where it is called; one that the cluster does not see, e.g. in /tmp, is lent to it.
lent= searched=
if [ "$command" = sbatch ]; then
  for word; do
    shift
    if [ -z "$searched" ] && [ -f "$word" ] && [ "$(head -c 2 "$word")" = '#!' ]; then
      searched=yes
      case "$word" in /*) place=$word ;; *) place=$(cd -P "$(dirname "$word")" && pwd)/ ;; esac
      case "$place" in {patterns}) ;; *)
        lent=$pid.lent/$(basename "$word")
        {exec_stdin} sh -c '{receive}' "$lent" {uid} < "$word" || exit
        word=$lent ;;
      esac
    fi
    set -- "$@" "$word"
  done
fi
{copy_in}
names=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' | grep -vxE '{local}' | sed 's/^/--env /')
tty=; if [ -t 0 ] && [ -t 1 ]; then tty=--tty; fi
pass_on() {{ {exec_root} sh -c 'kill -s "$0" "$(cat "$1")"' "$1" "$pid"; }}
trap 'pass_on INT' INT; trap 'pass_on TERM' TERM
exec 3<&0
# shellcheck disable=SC2086 # options are words
{exec_user} $tty $names {target} sh -c 'echo $$ > "$0"; exec "$@"' "$pid" "$command" "$@" <&3 &
child=$!
wait "$child"; status=$?
while kill -0 "$child" 2> /dev/null; do wait "$child"; status=$?; done
{copy_out}
[ -z "$lent" ] || {exec_root} rm -rf "$pid.lent"
exit $status
"""

# Only the caller may read the lent script.
_RECEIVE = 'umask 077 && folder=${0%/*} && mkdir "$folder" && cat > "$0" && chown -R "$1" "$folder"'

_EARLY = """#!/bin/sh
echo "$(basename "$0"): there is no cluster yet: with --slurm-on-path it starts before the first fixture" >&2
exit 1
"""


@contextlib.contextmanager
def commands_on_path(slurm: Slurm, workdir: Path, *more: Path) -> Iterator[Path]:
    """Put Slurm's commands first on this process's PATH; yields the folder in which they stand.

    Args:
        slurm: the cluster.
        workdir: the folder in which, or below which, the commands are called. If the cluster was started with it
            in `share`, both see the same files; else it is copied in before each command and back after it, which
            only the one host of a `SlurmContainer` can do.
        more: further folders, all of them shared.

    Raises:
        UsageError: the folder is missing, or it has to be shared: too large to be copied, or for several hosts.
    """
    slurm.substrate.attach(slurm.controller)  # refuses where the commands cannot come from
    roots = [folder.resolve() for folder in (workdir, *more)]
    root = roots[0]
    for folder in roots:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder", hint="make it first")
    shared = all(_is_shared(slurm, folder) for folder in roots)
    if not shared and more:
        raise UsageError("of several folders the cluster must share all", hint="start it with share=[...]")
    if not shared and len(slurm.substrate.hosts()) > 1:
        raise UsageError(
            f"{root} is not shared with this cluster, whose jobs run on other hosts than its commands",
            hint=f'start it with share=["{root}"]',
        )
    if not shared:
        _check_size(root)
    for folder in roots if shared else []:
        _check_writable(slurm, folder)
    with tempfile.TemporaryDirectory(prefix="slurm-testbed-bin-") as name:
        folder = Path(name)
        state = None if shared else folder / ".copied.json"
        _write(slurm, folder, roots, state)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(EngineError):  # which would hide why the block ended
                _copy_back(slurm, root, state)
            raise
        else:
            _copy_back(slurm, root, state)
        finally:
            os.environ["PATH"] = before


def write_commands(slurm: Slurm, folder: Path, *roots: Path) -> None:
    """Write Slurm's commands into a folder, for other processes than this one, and for as long as the cluster runs.

    Args:
        slurm: the cluster.
        folder: an empty folder, to be put on a PATH.
        roots: the folders in which, or below which, they are called; the cluster shares them all.

    Raises:
        UsageError: a folder is missing, or is not shared.

    Example:
        >>> write_commands(slurm, Path("bin"), Path.cwd())  # doctest: +SKIP
    """
    found = [root.resolve() for root in roots]
    for root in found:
        if not root.is_dir():
            raise UsageError(f"{root} is no folder", hint="make it first")
        if not _is_shared(slurm, root):
            raise UsageError(f"{root} is not shared with this cluster", hint=f"start it with: invoke up --share {root}")
        _check_writable(slurm, root)
    _write(slurm, folder, found, None)


def write_early_commands(folder: Path) -> None:
    """Write commands that only say that the cluster is yet to come, for programs that ask early whether there are any.

    Args:
        folder: an empty folder, to be put on a PATH.
    """
    for name in COMMANDS:
        path = folder / name
        path.write_text(_EARLY)
        path.chmod(0o755)


def _write(slurm: Slurm, folder: Path, roots: list[Path], state: Path | None) -> None:
    _ensure_user(slurm)
    script = _script(slurm, roots, state)
    for name in COMMANDS:
        path = folder / name
        path.write_text(script)
        path.chmod(0o755)


def _script(slurm: Slurm, roots: list[Path], state: Path | None) -> str:
    host = slurm.controller
    attach = slurm.substrate.attach(host)
    user = [f"--user={os.getuid()}:{os.getgid()}", "--interactive"]
    as_root = shlex.join([*attach.command, attach.target])
    exec_stdin = shlex.join([*attach.command, "--interactive", attach.target])
    below = " | ".join(f"{shlex.quote(str(root))}/*" for root in roots)
    return _SCRIPT.format(
        patterns=below,
        roots=" ".join(shlex.quote(str(root)) for root in roots),
        exec_stdin=exec_stdin,
        receive=_RECEIVE,
        uid=os.getuid(),
        pids="/run/slurm-testbed/stdin",
        exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in attach.env.items()),
        local="|".join([*LOCAL_VARIABLES, *_of_an_allocation()]),
        exec_root=as_root,
        exec_user=shlex.join([*attach.command, *user]) + ' --workdir="$PWD"',
        target=shlex.quote(attach.target),
        copy_in=f"{shlex.join(_copies(roots[0], state, attach, 'in'))} || exit" if state else "",
        copy_out=shlex.join(_copies(roots[0], state, attach, "out")) if state else "",
    )


def _of_an_allocation() -> list[str]:
    """What another Slurm has set, in whose job the caller runs: srun would take its job for one of the cluster's."""
    return [name for name in os.environ if name.startswith("SLURM_")] if "SLURM_JOB_ID" in os.environ else []


def _is_shared(slurm: Slurm, root: Path) -> bool:
    with tempfile.NamedTemporaryFile(dir=root, prefix=".slurm-testbed-") as probe:
        return slurm.run(["test", "-e", probe.name], check=False).returncode == 0


def _check_writable(slurm: Slurm, root: Path) -> None:
    user = f"{os.getuid()}:{os.getgid()}"
    if os.access(root, os.W_OK) and slurm.run(["test", "-w", str(root)], user=user, check=False).returncode:
        raise UsageError(
            f"uid {os.getuid()} may write in {root} here, but not in the cluster, which sees other owners of its files",
            hint="as with a rootless engine, whose containers have uids of their own: take one that runs as root",
        )


def _check_size(root: Path) -> None:
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())
    if size > COPY_LIMIT_MIB * 2**20:
        raise UsageError(
            f"{root} has {size / 2**20:.0f} MiB, too much to copy around each command",
            hint=f'start the cluster with share=["{root}"], then both see the same files',
        )


def _copy_back(slurm: Slurm, root: Path, state: Path | None) -> None:
    """What jobs wrote after the last command."""
    if state is None:
        return
    attach = slurm.substrate.attach(slurm.controller)
    argv = _copies(root, state, attach, "out")
    done = subprocess.run(argv, env={**os.environ, **attach.env}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"what jobs wrote in {root} did not come back: {tail(done.stderr, 3)}")


def _copies(root: Path, state: Path, attach: Attach, direction: str) -> list[str]:
    there = [*attach.command, "--interactive", attach.target]
    return [sys.executable, "-I", copies.__file__, direction, str(root), str(state), *there]


def _ensure_user(slurm: Slurm) -> None:
    """The caller's uid needs a name in the cluster: slurmctld refuses jobs of a uid that it cannot look up."""
    uid, gid = os.getuid(), os.getgid()
    for host in slurm.substrate.hosts():
        if slurm.run(["getent", "passwd", str(uid)], host=host.name, check=False).returncode:
            name = _name_of(uid)
            if slurm.run(["getent", "passwd", name], host=host.name, check=False).returncode == 0:
                name = f"{name}-{secrets.token_hex(2)}"
            script = 'getent group "$1" || groupadd --gid "$1" "$2"; useradd --create-home --uid "$0" --gid "$1" "$2"'
            slurm.run(["sh", "-c", script, str(uid), str(gid), name], host=host.name)
    name = slurm.run(["id", "--name", "--user", str(uid)]).stdout.strip()
    with contextlib.suppress(CommandError):  # a cluster without accounting has no associations
        slurm.run(["sacctmgr", "--immediate", "add", "user", name, "Account=research"])


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container that was started with any number
        return f"user{uid}"
