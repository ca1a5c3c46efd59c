#!/bin/sh
# Start a server in its container: set it up where that has not been done, then serve.
# `init` is safe to repeat: it migrates, and leaves keys, fleet and tokens that are there alone.
set -eu

pilotwave-server init --fleet "${PILOTWAVE_FLEET:-trial}" \
  --token-file "${PILOTWAVE_TOKEN_DIR:-/token}/admin-token"
exec pilotwave-server run
