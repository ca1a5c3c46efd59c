#!/bin/sh
# Once per fleet: make its keys, then hand out the root of trust and one code per device named.
# Safe to repeat: what is there stays. The keys are plain files, which suits a trial only.
set -eu

operator=${PILOTWAVE_OPERATOR_DIR:-/operator}
enrolment=${PILOTWAVE_ENROLMENT_DIR:-/enrolment}
# a server that was set up by an older file left it beside the keys
token=${PILOTWAVE_TOKEN_DIR:-/token}/admin-token
[ -e "$token" ] || token=$operator/admin-token
PILOTWAVE_TOKEN=$(cat "$token")
export PILOTWAVE_TOKEN
umask 077

if [ -e "$PILOTWAVE_KEYS/bootstrap.json" ]; then
  # Keys were made the last time, and the server did not take them.
  pilotwave keys submit "$PILOTWAVE_KEYS/bootstrap.json"
  rm "$PILOTWAVE_KEYS/bootstrap.json"
elif [ ! -e "$PILOTWAVE_KEYS/root.json" ]; then
  pilotwave keys init --dir "$PILOTWAVE_KEYS" --plain
elif pilotwave status --json | grep -q '"bootstrapped": false'; then
  echo "The server's database is new, and $PILOTWAVE_KEYS holds the keys of the fleet before it." >&2
  echo "Put the database back from a backup, or begin anew: docker compose down --volumes" >&2
  exit 1
fi
cp "$PILOTWAVE_KEYS/root.json" "$enrolment/root.new"
mv "$enrolment/root.new" "$enrolment/root.json"

for device in "$@"; do
  [ -e "$enrolment/$device.code" ] && continue
  pilotwave codes create --device "$device" --label site=trial --expires 7d > "$enrolment/$device.new"
  mv "$enrolment/$device.new" "$enrolment/$device.code"
done
echo "keys are in $PILOTWAVE_KEYS; codes are ready for: $*"
