#!/bin/sh
# Run server and agents in containers of the real Dockerfile, and give the agents a program as a
# model that tries to get out of its self-test.   container.sh FOLDER
# One agent has a container as `docker run` makes it, the other one with less.
set -eu
folder=${1:?name a folder for what is kept}
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
less="--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"

end() {
  docker rm --force --volumes try-server try-plain try-less > /dev/null 2>&1 || true
  docker volume rm try-token try-operator try-enrolment > /dev/null 2>&1 || true
  docker network rm try > /dev/null 2>&1 || true
}

operator() { # the pilotwave command, and what it is given on standard input
  docker run --rm --interactive --network try -v try-operator:/operator -v try-token:/token:ro \
    -v try-enrolment:/enrolment -e PILOTWAVE_URL=http://try-server:8600 \
    -e PILOTWAVE_KEYS=/operator/keys --entrypoint sh pilotwave-server -ec "$1"
}

pilotwave="sh /opt/pilotwave-docker/operator.sh"

agent() { # NAME WORDS OF DOCKER…
  name=$1
  shift
  docker run --detach --init --network try --name "try-$name" -v try-enrolment:/enrolment:ro \
    -v /data -e PILOTWAVE_SERVER=http://try-server:8600 -e "PILOTWAVE_DEVICE=$name" "$@" \
    pilotwave-agent > /dev/null
  wait_for 60 "$name is enrolled" docker exec "try-$name" test -e /data/agent.toml
  docker exec -i "try-$name" sh -ec 'echo "probation_s = 2
allow_unsafe_formats = true" | cat - /data/agent.toml > /data/new && mv /data/new /data/agent.toml'
  docker restart "try-$name" > /dev/null
}

wait_for() { # SECONDS SENTENCE COMMAND…: until it succeeds
  limit=$1 sentence=$2 tries=0
  shift 2
  until "$@" > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt "$limit" ] || { echo "not within $limit tries: $sentence" >&2; exit 1; }
    sleep 1
  done
  echo "$sentence: after $tries s"
}

runs() { # DEVICE MODEL
  docker exec "try-$1" pilotwave-agent status --data /data | grep -q "^$2: runs 1.0.0 .*healthy"
}

make_images() {
  sh "$here/images.sh" "$folder" python
  for target in server agent; do
    docker build -q --target "$target" -t "pilotwave-$target" "$tree" > /dev/null
  done
}

publish() { # MODEL WORDS…: its folder comes on standard input, as a tar
  model=$1
  shift
  operator "mkdir /tmp/version && tar -x -C /tmp/version
    $pilotwave models create $model --publisher /operator/keys/publisher.pem > /dev/null
    $pilotwave publish $model 1.0.0 --variant v=/tmp/version --key /operator/keys/publisher.pem \
      --yes --no-try $*
    $pilotwave assign $model 1.0.0 --group here --yes"
}

trap end EXIT
make_images
docker network create try > /dev/null
docker run --detach --init --network try --name try-server -v try-token:/token -v /data \
  -e PILOTWAVE_POLL_INTERVAL_S=2 pilotwave-server > /dev/null
wait_for 60 "the server answers" docker exec try-server python -c \
  'import urllib.request as r; r.urlopen("http://127.0.0.1:8600/readyz", timeout=2)'
operator "sh /opt/pilotwave-docker/setup.sh plain less; $pilotwave groups create here --selector site=trial"
agent plain
# shellcheck disable=SC2086 # several words
agent less $less
tar -C "$tree/examples/digits/1.0.0" -c . | publish detector
mkdir -p "$folder/intruder"
cp "$here/break_out.py" "$folder/intruder/"
printf 'try-server 8600\n/data\n' > "$folder/intruder/where.txt"
tar -C "$folder/intruder" -c . | publish intruder --unsafe-format --runtime command \
  --entrypoint break_out.py
for name in plain less; do
  wait_for 60 "$name runs the detector" runs "$name" detector
  wait_for 60 "$name: the intruder got nowhere" runs "$name" intruder
  ! docker exec "try-$name" sh -c "grep -l '[9]87654' /proc/[0-9]*/cmdline" ||
    { echo "a process of the intruder outlived its test" >&2; exit 1; }
  operator "$pilotwave devices show $name --json" | grep '"selftest.confinement": "full"'
  tar -C "$folder" -c intruder | docker exec -i "try-$name" tar -C /tmp -x
  docker exec "try-$name" python /tmp/intruder/break_out.py > "$folder/unconfined" 2> /dev/null || true
  grep 'reached the server.*key' "$folder/unconfined"
done
echo "container: ok"
