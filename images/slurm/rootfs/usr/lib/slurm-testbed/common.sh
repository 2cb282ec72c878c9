# shellcheck shell=bash
# Common to the start-up scripts: the line format of the start, failing, waiting with a deadline.
run=/run/slurm-testbed
share=/usr/share/slurm-testbed
# A host that joins waits longer: its head node may only be on its way.
export SLURM_TESTBED_JOIN_DEADLINE=${SLURM_TESTBED_JOIN_DEADLINE:-${SLURM_TESTBED_DEADLINE:-300}}
export SLURM_TESTBED_DEADLINE=${SLURM_TESTBED_DEADLINE:-60}
# shellcheck source=/dev/null
. $share/release.env

has_ability() { [[ " $SLURM_ABILITIES " == *" $1 "* ]]; } # ABILITY: see images/releases.yaml

capable() { # NUMBER of linux/capability.h
  local status; read -r -d '' status < /proc/self/status
  [[ $status =~ CapEff:[[:space:]]+([0-9a-f]+) ]] && (((0x${BASH_REMATCH[1]} >> $1) & 1))
}

say() { # with the seconds since process 1 started (proc(5): both count from boot)
  local up stat hundredths
  read -r up _ < /proc/uptime
  read -r stat < /proc/1/stat
  read -ra stat <<< "${stat##*) }"
  hundredths=$((10#${up/./} - ${stat[19]}))
  printf 'slurm-testbed: +%d.%02d %s\n' $((hundredths / 100)) $((hundredths % 100)) "$*" >&2
}

begins() { # DAEMON [NODE]: its service says so, just before; until then nobody needs to ask whether it listens
  say "$1: starts${2:+ on $2}"
  : > "$run/begun-$1"
}

fail() { # MESSAGE HINT
  printf 'slurm-testbed: %s\nslurm-testbed: hint: %s\n' "$1" "$2" >&2
  exit 1
}

# The shared tree of a cluster of several hosts: configuration and keys, for all of them. Of a cluster that is one host,
# /shared is a folder like another. The role is asked of the start, for `docker exec` has the image's.
tree=/shared/slurm-config
on_tree() {
  local role
  { read -r role < $run/role; } 2> /dev/null || role=$SLURM_TESTBED_ROLE
  [ "$role" != cluster ] && mounted /shared
}

mounted() { # PATH: is it a mount point of its own? The fifth field of proc(5)'s mountinfo.
  local table; read -r -d '' table < /proc/self/mountinfo || [ -n "$table" ]
  [[ $'\n'$table =~ $'\n'[^\ ]+\ [^\ ]+\ [^\ ]+\ [^\ ]+\ "$1"\  ]]
}

listening() { # PORT: does anything on this host listen there? Asked of the kernel, so that no daemon sees a stray connection.
  local hex; printf -v hex %04X "$1"
  read_sockets
  [[ $sockets =~ :$hex\ [0-9A-F:]+\ 0A ]]
}

# The kernel looks through the connections of all containers for its list, 2 to 4 ms where memory is large. So the list
# is read where the number of this host's own sockets is another one, and each tenth time: one may come as another goes.
sockets='' sockets_counted='' sockets_asked=0
read_sockets() {
  local file text counted=
  for file in /proc/net/sockstat /proc/net/sockstat6; do
    text=; read -r -d '' text 2> /dev/null < $file
    [[ ! $text =~ TCP6?:\ inuse\ ([0-9]+) ]] || counted+="${BASH_REMATCH[1]} "
  done
  [ -z "$counted" ] || [ "$counted" != "$sockets_counted" ] || ((++sockets_asked % 10 == 0)) || return 0
  sockets_counted=$counted sockets=
  for file in /proc/net/tcp /proc/net/tcp6; do
    text=; read -r -d '' text 2> /dev/null < $file
    sockets+=$text
  done
}

await_tree() { # FILE VERB: what the head node puts onto the shared tree
  local file=$tree/$1
  SLURM_TESTBED_DEADLINE=$SLURM_TESTBED_JOIN_DEADLINE await "$file, which the head node $2" "is a container with the role slurmctld on the same shared tree? see its log." test -e "$file"
}

reachable() { # HOST PORT
  if [ "$1" = "$HOSTNAME" ]; then listening "$2"; else { exec 3<> "/dev/tcp/$1/$2"; } 2> /dev/null && exec 3>&-; fi
}

await() { # WHAT HINT COMMAND...: poll until the command succeeds, each $pause s, fail after SLURM_TESTBED_DEADLINE seconds
  local what=$1 hint=$2 end=$((SECONDS + SLURM_TESTBED_DEADLINE)) last nap; shift 2
  # The hosts of a cluster ask all at once: what they ask, often on the same processors, is taken from those that start.
  if [ -z "${pause-}" ]; then local pause=0.01; ! on_tree || pause=0.04; fi
  # Reading from a pipe into which nobody writes is a pause without a process: two cores start six daemons here. Before
  # bash 5.2 the alarm of `read -t` may come before it reads, on a busy machine, and then it reads forever.
  # What makes the pipe must have ended: bullseye's script(1), which slurmrestd's service may become, copies nothing any more
  # when another child than its own ends. bash may have seen its end already, and then has nothing to wait for: no error.
  if [ "${BASH_VERSINFO[0]}${BASH_VERSINFO[1]}" -ge 52 ]; then exec {nap}<> <(:); ! wait $! 2> /dev/null; fi
  until "$@"; do
    [ $SECONDS -lt $end ] || { [ ! -e $run/not-ready ] || last=$(< $run/not-ready); fail "waited $SLURM_TESTBED_DEADLINE s for $what${last:+; last: $last}." "$hint"; }
    if [ -z "${nap-}" ]; then sleep $pause
    else ! read -r -t $pause -u $nap; fi # its failure is no error: callers may have set -e
  done
  [ -z "${nap-}" ] || exec {nap}>&-
}
