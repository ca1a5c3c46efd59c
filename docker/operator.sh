#!/bin/sh
# Run the operator's CLI with the token that the server left for it.
set -eu

PILOTWAVE_TOKEN=$(cat "${PILOTWAVE_OPERATOR_DIR:-/operator}/admin-token")
export PILOTWAVE_TOKEN
exec pilotwave "$@"
