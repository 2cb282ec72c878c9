# shellcheck shell=bash
# The generic resources that SLURM_NODE_GRES asks for, as variables of the fragments: gres.conf(5). Makes device nodes for those
# of this container's nodes: stand-ins, with nothing of the kind behind them.
export SLURM_WITH_GRES=no SLURM_GRES_CONF='' SLURM_GRES_TYPES='' SLURM_GRES_TRES='' SLURM_GRES_DEVICES=''

make_stand_ins() { # prints the lines of gres.conf
  local folder=/dev/slurm-testbed made=0 minors=() entry name count type first n
  local -A next=()
  # A job in a cgroup may open none but its own: each is another device then, of those that the engine lets every
  # container open and that a job can do without: full and random, mem(4). Else all are null.
  [ "$SLURM_CGROUP" = none ] || minors=(7 8)
  mkdir -p $folder
  for entry in ${SLURM_NODE_GRES//,/ }; do
    name=${entry%%:*} count=${entry##*:} type=${entry#"$name"} type=${type%":$count"} first=${next[${entry%%:*}]-0}
    for ((n = first; n < first + count; n++, made++)); do
      [ ${#minors[@]} = 0 ] || [ $made -lt ${#minors[@]} ] || fail "SLURM_NODE_GRES=$SLURM_NODE_GRES: there are ${#minors[@]} stand-in devices, no more, that jobs can be kept from." "ask for fewer, or hold jobs in no cgroups: SLURM_CGROUP=none."
      [ -e "$folder/$name$n" ] || mknod -m 666 "$folder/$name$n" c 1 "${minors[made]-3}" || fail "no stand-in device can be made." "give the container the capability MKNOD, which it has by default."
    done
    next[$name]=$n
    echo "Name=$name ${type:+Type=${type#:} }File=$folder/${name}[$first-$((n - 1))]"
  done
  say "gres: $SLURM_NODE_GRES, on stand-in devices in $folder"
}

if [ -n "$SLURM_NODE_GRES" ]; then
  SLURM_WITH_GRES=yes SLURM_GRES_CONF=Gres=$SLURM_NODE_GRES
  for entry in ${SLURM_NODE_GRES//,/ }; do
    case ,$SLURM_GRES_TYPES, in *,${entry%%:*},*) ;; *) SLURM_GRES_TYPES+=${SLURM_GRES_TYPES:+,}${entry%%:*} SLURM_GRES_TRES+=${SLURM_GRES_TRES:+,}gres/${entry%%:*} ;; esac
  done
  case $SLURM_TESTBED_ROLE in cluster | slurmd) SLURM_GRES_DEVICES=$(make_stand_ins) ;; esac
fi
