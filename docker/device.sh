#!/bin/sh
# A device in its container: enrol where that has not been done, then run the agent.
# With `healthy` as its one word it only tells whether the agent runs.
set -eu

data=${PILOTWAVE_DEVICE_DATA:-/data}
enrolment=${PILOTWAVE_ENROLMENT_DIR:-/enrolment}

if [ "${1:-}" = healthy ]; then
  pilotwave-agent status --data "$data" --json | grep -q '"running": true'
  exit
fi

if [ ! -e "$data/identity/enrolled.json" ]; then
  pilotwave-agent enrol --data "$data" --server "$PILOTWAVE_SERVER" --name "$PILOTWAVE_DEVICE" \
    --code "$(cat "$enrolment/$PILOTWAVE_DEVICE.code")" --root "$enrolment/root.json"
fi
exec pilotwave-agent run --data "$data"
