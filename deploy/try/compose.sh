#!/bin/sh
# Bring deploy/compose up on an engine and play the first day.   compose.sh FOLDER
set -eu
folder=${1:?name a folder for what is kept}
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
PATH=$tree/.venv/bin:$PATH
services="postgres init server-1 server-2 nginx mosquitto prometheus alertmanager"

compose() { docker compose --progress quiet -f "$work/tree/deploy/compose/compose.yml" "$@"; }

agent=
end() {
  [ -z "$agent" ] || kill "$agent" || true
  compose down --volumes --timeout 10 || true
  rm -rf "$work"
}

up() {
  # shellcheck disable=SC2086 # several words
  compose up --detach --build $services
}

runs() { # VERSION: wait until the device has switched to it
  tries=0
  until readlink "$work/device/models/detector/current" 2> /dev/null | grep -q "versions/$1-"; do
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || { echo "the device does not run $1 after 120 s" >&2; exit 1; }
    sleep 1
  done
  echo "the device runs $1 after $tries s"
}

publish() {
  pilotwave publish detector "$1" --variant "onnx=$tree/examples/digits/$1" \
    --key "$work/keys/publisher.pem" --yes --no-try
  pilotwave assign detector "$1" --group here --yes
}

ask() { # PATH of Prometheus' API, from inside
  compose exec -T server-2 python -c \
    "import urllib.request as r; print(r.urlopen('http://prometheus:9090/api/v1/$1').read().decode())"
}

sh "$here/images.sh" "$folder"
git clone -q "$tree" "$work/tree"
sh "$work/tree/deploy/compose/setup.sh" localhost trial
trap end EXIT
up

export PILOTWAVE_URL=https://localhost PILOTWAVE_KEYS=$work/keys
SSL_CERT_FILE=$work/tree/deploy/compose/secrets/tls/cert.pem
PILOTWAVE_TOKEN=$(docker run --rm -v pilotwave-site_token:/t:ro try-python cat /t/admin-token)
export SSL_CERT_FILE PILOTWAVE_TOKEN
pilotwave keys init --plain
pilotwave models create detector --publisher "$work/keys/publisher.pem"
pilotwave groups create here --selector site=here
code=$(pilotwave codes create --label site=here --json |
  python -c 'import json, sys; print(json.load(sys.stdin)["items"][0]["code"])')
pilotwave-agent enrol --server "$PILOTWAVE_URL" --name cam-1 --code "$code" \
  --root "$work/keys/root.json" --data "$work/device" --ca-file "$SSL_CERT_FILE"
publish 1.0.0
pilotwave-agent run --data "$work/device" 2> "$work/agent.log" &
agent=$!
runs 1.0.0

ask 'query?query=sum(up)' | grep -q '"2"\]' && echo "Prometheus reads both servers"
docker kill --signal KILL pilotwave-site-server-1-1 > /dev/null
for _ in 1 2 3 4 5; do pilotwave models list > /dev/null; done
echo "one server was killed, and the other answered"
compose exec -T server-2 pilotwave-server backup --to /data/backup.tar

compose down
up
publish 1.1.0
runs 1.1.0
pilotwave devices list
echo "compose: ok"
