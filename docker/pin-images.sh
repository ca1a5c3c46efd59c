#!/bin/sh
# Write the images that come from elsewhere, by digest, into .env, which `docker compose` reads.
# A tag says what somebody meant; a digest says which bytes. Run it again to take newer ones.
set -eu

file=${1:-.env}
new=$(mktemp "$file.XXXXXX")
trap 'rm -f "$new"' EXIT
[ ! -e "$file" ] || sed '/^PYTHON_IMAGE=/d; /^POSTGRES_IMAGE=/d' "$file" > "$new"
for pair in PYTHON_IMAGE=python:3.11-slim POSTGRES_IMAGE=postgres:16; do
  image=${pair#*=}
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
  echo "$digest" | grep -Eqx 'sha256:[0-9a-f]{64}' || {
    echo "$image: expected a digest from the registry; got '$digest'" >&2
    exit 1
  }
  echo "$pair@$digest" >> "$new"
done
mv "$new" "$file"
trap - EXIT
