#!/bin/sh
# As much of the postgres image's start as the compose file needs: one user, one database, a password.
set -eu
if [ "$(id -u)" = 0 ]; then
  install -d -o postgres -m 0700 "$PGDATA"
  install -d -o postgres /var/run/postgresql
  exec gosu postgres sh "$0"
fi
if [ ! -e "$PGDATA/PG_VERSION" ]; then
  umask 077
  echo "${POSTGRES_PASSWORD:?}" > /tmp/password
  initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password -A scram-sha-256 --auth-local=trust
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -w -o "-h ''" start
  createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
  pg_ctl -D "$PGDATA" -w stop
fi
exec postgres -h '*'
