# shellcheck shell=bash
# The settings of a container, with their defaults; docs/images.md describes them.
[ -z "${SLURM_TESTBED_SETTLED-}" ] || return 0 # what the start starts has them from it
is_user() { # NAME: the image's own first, without a process
  local passwd; read -r -d '' passwd < /etc/passwd
  [[ $'\n'$passwd == *$'\n'"$1:"* ]] || id -u "$1" > /dev/null 2>&1
}
read -r _ memory _ < /proc/meminfo # its first line is MemTotal
set -a
read -r HOSTNAME < /proc/sys/kernel/hostname
: "${SLURM_CLUSTER_NAME:=testbed}"
: "${SLURMCTLD_HOST:=$HOSTNAME}" "${SLURMDBD_HOST:=$SLURMCTLD_HOST}" "${SLURM_DATABASE_HOST:=localhost}"
: "${SLURM_NODES:=1}" "${SLURM_MEMORY:=$((memory / 1024))}"
: "${SLURM_ACCOUNTING:=yes}" "${SLURM_CGROUP:=auto}" "${SLURM_DEBUG:=info}"
: "${SLURM_NODES_CGROUP:=no}" "${SLURM_NODE_GRES:=}"
: "${SLURMRESTD_HOST:=0.0.0.0}" "${SLURMRESTD_PORT:=6820}"
: "${SLURM_TESTBED_USER:=alice}"
# Binding another user's process to cores needs CAP_SYS_NICE (sched_setaffinity(2)).
if capable 23 || [ $SLURM_NODES_CGROUP = yes ]; then SLURM_CPU_BINDING=1; else SLURM_CPU_BINDING=0; fi
set +a
case $SLURM_NODES in '' | *[!0-9]* | 0*) fail "SLURM_NODES=$SLURM_NODES is not a number of nodes." "give 1 or more." ;; esac
export SLURM_MAX_NODES=${SLURM_MAX_NODES:-$((SLURM_NODES + 32))}
case $SLURM_MAX_NODES in *[!0-9]* | 0*) fail "SLURM_MAX_NODES=$SLURM_MAX_NODES is not a number of nodes." "leave it out for $((SLURM_NODES + 32))." ;; esac
if [ -n "${SLURM_NODE_CONF+set}" ] && ! has_ability dynamic_nodes; then fail "Slurm $SLURM_RELEASE has no dynamic nodes (slurmd -Z), which SLURM_NODE_CONF asks for." "take Slurm 22.05 or later."; fi
case $SLURM_ACCOUNTING in yes | no) ;; *) fail "SLURM_ACCOUNTING=$SLURM_ACCOUNTING is neither yes nor no." "leave it out for yes." ;; esac
for entry in ${SLURM_NODE_GRES//,/ }; do
  [[ $entry =~ ^[a-z]+(:[A-Za-z0-9_.-]+)?:[1-9][0-9]*$ ]] || fail "SLURM_NODE_GRES: $entry is not NAME:COUNT or NAME:TYPE:COUNT." "give for instance gpu:tesla:2."
done
case $SLURM_CGROUP in auto | none | v1 | v2) ;; *) fail "SLURM_CGROUP=$SLURM_CGROUP is none of auto, none, v1, v2." "leave it out for auto." ;; esac
is_user "$SLURM_TESTBED_USER" || fail "SLURM_TESTBED_USER=$SLURM_TESTBED_USER is no user of this image." "its test users are alice, bob, carol and dave."
export SLURM_TESTBED_SETTLED=yes
