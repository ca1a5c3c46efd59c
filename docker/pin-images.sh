#!/bin/sh
# Write the images that come from elsewhere, by digest, into the file that `docker compose` reads.
# A tag says what somebody meant; a digest says which bytes. Run it again to take newer ones.
#   sh docker/pin-images.sh [FILE [COMPOSE]]           by default .env and docker-compose.yml
#   sh docker/pin-images.sh --check [FILE [COMPOSE]]   name those that FILE does not pin; status 1
set -eu

check=
[ "${1:-}" != --check ] || { check=yes; shift; }
file=${1:-.env}
compose=${2:-docker-compose.yml}
images=$(sed -n 's/.*${\([A-Z_]*_IMAGE\):-\([^}]*\)}.*/\1=\2/p' "$compose" | sort -u)
[ -n "$images" ] || { echo "$compose: expected images as \${NAME_IMAGE:-name:tag}" >&2; exit 1; }

if [ -n "$check" ]; then
  status=0
  for pair in $images; do
    name=${pair%%=*}
    grep -Eqsx "$name=[^@]+@sha256:[0-9a-f]{64}" "$file" && continue
    echo "${pair#*=} ($name) is not pinned by digest in $file: sh docker/pin-images.sh $file $compose" >&2
    status=1
  done
  exit "$status"
fi

new=$(mktemp "$file.XXXXXX")
trap 'rm -f "$new"' EXIT
[ ! -e "$file" ] || cp "$file" "$new"
for pair in $images; do
  image=${pair#*=}
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
  echo "$digest" | grep -Eqx 'sha256:[0-9a-f]{64}' || {
    echo "$image: expected a digest from the registry; got '$digest'" >&2
    exit 1
  }
  sed -i "/^${pair%%=*}=/d" "$new"
  echo "$pair@$digest" >> "$new"
done
mv "$new" "$file"
trap - EXIT
