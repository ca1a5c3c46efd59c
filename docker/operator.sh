#!/bin/sh
# Run the operator's CLI with the token that the server left for it.
set -eu

# a server that was set up by an older file left it beside the keys
token=${PILOTWAVE_TOKEN_DIR:-/token}/admin-token
[ -e "$token" ] || token=${PILOTWAVE_OPERATOR_DIR:-/operator}/admin-token
PILOTWAVE_TOKEN=$(cat "$token")
export PILOTWAVE_TOKEN
exec pilotwave "$@"
