#!/bin/sh
# Make the fleet where there is none, migrate, and make the token with which Prometheus reads. Safe
# to repeat.
set -eu

pilotwave-server init --fleet "$1" --token-file /token/admin-token
token=/enrolment/metrics
[ -s "$token" ] || pilotwave-server new-token --name prometheus --role viewer --token-file "$token"
# Prometheus is another user; the volume is its and this script's alone
chmod 0755 /enrolment
chmod 0444 "$token"
