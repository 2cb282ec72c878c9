#!/bin/sh
# Slurm's prolog and epilog, of slurmd and of slurmctld: leaves one record for the agent of slurm-observability.
# Which of the four it is, Slurm says, or by hand its own name: the other three are links to this file.
# Jobs wait for it, and a failure drains the node: so it starts no process, and ends well whatever happens. Without room
# on the disk, or without the folder, the record is lost, not the job.
trap 'exit 0' EXIT
umask 077
called=${SLURM_SCRIPT_CONTEXT:-${0#"${0%/*/*}"}}
case $called in *prolog*) kind=prolog ;; *) kind=epilog ;; esac
case $called in *slurmctld*) kind=${kind}slurmctld ;; esac
spool=${OBSERVABILITY_SPOOL:-/var/spool/slurm-observability}/new
# A process id may come again, but not in the same hundredth of a second. The time itself is that of the file.
read -r uptime _ < /proc/uptime
# Each as it stands in an environment, ended by a NUL; END says that all of it is there.
record() {
  printf 'KIND=%s\000' "$kind"
  for name in SLURMD_NODENAME SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_CLUSTER_NAME SLURM_CONF SLURM_HET_JOB_ID \
    SLURM_JOB_ACCOUNT SLURM_JOB_CPUS_PER_NODE SLURM_JOB_EXIT_CODE SLURM_JOB_EXIT_CODE2 SLURM_JOB_GPUS SLURM_JOB_ID \
    SLURM_JOB_NAME SLURM_JOB_NODELIST SLURM_JOB_NUM_NODES SLURM_JOB_PARTITION SLURM_JOB_RESTART_COUNT SLURM_JOB_SLUID \
    SLURM_JOB_START_TIME SLURM_JOB_UID SLURM_JOB_USER SLURM_NODEID SLURM_NODELIST; do
    eval "value=\${$name-}"
    [ -z "$value" ] || printf '%s=%s\000' "$name" "$value"
  done
  printf 'END=1\000'
}
case ${SLURM_JOB_ID-} in
  '' | *[!0-9]*) ;;
  *) { record > "$spool/$SLURM_JOB_ID.$kind.$uptime.$$"; } 2> /dev/null ;;
esac
