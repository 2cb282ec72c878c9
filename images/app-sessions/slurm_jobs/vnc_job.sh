#!/bin/bash
#SBATCH --partition=viz
#SBATCH --nodes=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=02:00:00
# An application session: runs an application's image on this node, and says where its picture is. By the environment:
#   SESSION_ID VNC_PORT APP_ID  which session, the port to try first, the application
#   APP_SESSION_PASSWORD        of its VNC, 6 to 8 characters; no process but this one sees it
#   APP_IMAGE APP GEOMETRY      where they are not /opt/apptainers/apps/APP_ID/APP_ID.sif, APP_ID and 1280x800
# Arguments are the application's. The job's comment becomes vnc_port=PORT, the port that it got, or error=TEXT; /tmp/app_session_SESSION_ID.info has the
# rest while the session lasts. The image's program says by exit status 75 that a port is taken: sysexits.h(3head).
set -euo pipefail
mask=$(umask)
umask 077
node=${SLURMD_NODENAME:-$(hostname)} folder='' info='' program='' display=''

comment() { scontrol update "JobId=$SLURM_JOB_ID" "Comment=$1" || echo "app session: slurmctld did not take the comment $1" >&2; }
fail() { echo "app session: $1" >&2; comment "error=$1"; exit 1; }

tell() { # STATUS: whole or not there, and nobody else's file is written to, for /tmp is everybody's
  printf '%s\n' "JOB_ID=$SLURM_JOB_ID" "NODE=$node" "VNC_PORT=$port" "NODE_IP=$address" "STATUS=$1" "START_TIME=$start" > "$folder/info"
  mv -fT "$folder/info" "/tmp/app_session_$SESSION_ID.info" || fail "/tmp/app_session_$SESSION_ID.info on node $node is somebody else's: remove it"
  info=/tmp/app_session_$SESSION_ID.info
}

# shellcheck disable=SC2329 # a trap calls it
finish() {
  trap '' TERM
  set +e
  # Slurm ends all at once. Where what mounts the image goes first, the others die of a bus error and clean up nothing.
  if [ -n "$program" ]; then { kill "$program"; wait "$program"; } 2> /dev/null; fi
  [ ! -e "$folder/ready" ] || display=$(sed -n 's/^DISPLAY=://p' "$folder/ready")
  if [ -n "$display" ] && [ -O "/tmp/.X$display-lock" ] && ! kill -0 "$(< "/tmp/.X$display-lock")" 2> /dev/null; then
    rm -f "/tmp/.X$display-lock" "/tmp/.X11-unix/X$display"
  fi
  [ ! -e "$folder/said" ] || cat "$folder/said" >&2
  rm -rf ${info:+"$info"} ${folder:+"$folder"}
}
trap finish EXIT
trap 'exit 143' TERM

for name in SESSION_ID VNC_PORT APP_ID APP_SESSION_PASSWORD; do [ -n "${!name-}" ] || fail "the job was submitted without $name"; done
[[ $SESSION_ID =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$ ]] || fail "SESSION_ID is no name: give letters, digits and ._-"
[[ $APP_ID =~ ^[a-z0-9][a-z0-9._+-]*$ ]] || fail "APP_ID is no name: give small letters, digits and -"
[[ $VNC_PORT =~ ^[1-9][0-9]{3,4}$ && $VNC_PORT -le 65400 ]] || fail "VNC_PORT=$VNC_PORT is no port: give one from 1000 to 65400"
image=${APP_IMAGE:-/opt/apptainers/apps/$APP_ID/$APP_ID.sif}
[ -r "$image" ] || fail "the image $image is not on node $node: deploy it with invoke deploy-app --app $APP_ID --nodes $node"
type -P apptainer > /dev/null || fail "node $node has no apptainer: install it, or keep the node out of partition ${SLURM_JOB_PARTITION-viz}"

folder=$(mktemp -d /tmp/app_session.XXXXXXXX)
printf '%s\n' "$APP_SESSION_PASSWORD" > "$folder/password"
unset APP_SESSION_PASSWORD
export APP=${APP:-$APP_ID} VNC_PASSWORD_FILE=$folder/password VNC_READY_FILE=$folder/ready TMPDIR=$folder
start=$(date --iso-8601=seconds) port=$VNC_PORT address=
read -r address _ < <(getent ahostsv4 "$node") || address=$(hostname -I | cut -d' ' -f1)

for ((port = VNC_PORT; port < VNC_PORT + 100; port++)); do
  [[ ! $(cat /proc/net/tcp*) =~ :$(printf %04X "$port")' '[0-9A-F:]+' 0A ' ]] || continue
  tell starting
  # Files that the user saves have the user's own mode.
  (umask "$mask" && VNC_PORT=$port exec apptainer --quiet run "$image" "$@") 2>> "$folder/said" &
  program=$! end=$((SECONDS + 120)) status=0
  until [ -e "$folder/ready" ] || ! kill -0 $program 2> /dev/null; do
    [ $SECONDS -lt $end ] || fail "the application $APP did not start on node $node within 120 s: see the job's output"
    sleep 0.05
  done
  [ ! -e "$folder/ready" ] || { rm "$folder/password"; tell running; comment "vnc_port=$port"; }
  wait $program || status=$?
  program=
  if [ -e "$folder/ready" ]; then
    case $status in 0 | 143) exit $status ;; esac # its end, or everybody's: scancel, the time limit
    fail "the application $APP ended with $status on node $node: see the job's output"
  fi
  # Another session may have taken the port meanwhile.
  said=$(tail -n 1 "$folder/said")
  [ $status = 75 ] || fail "${said#viz-app: } (node $node, exit status $status)"
done
fail "no port from $VNC_PORT to $((port - 1)) is free on node $node: end a session there, or submit with another VNC_PORT"
