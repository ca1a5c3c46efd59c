#!/bin/sh
# Install server and agent in a Debian machine with systemd, and do to them what happens to
# services: kills, hangs, reboots, power cuts, newer agents, a model that tries to break out.
#   systemd.sh FOLDER [STEP…]
set -eu
folder=${1:?name a folder for what is kept}
shift
steps="${*:-boot set_up_server try_server set_up_agent try_agent try_intruder try_agent_versions \
  try_power_cut try_reboot take_away}"
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
SERVER=/var/lib/pilotwave-server
DEVICE=/var/lib/pilotwave
# shellcheck source=deploy/try/machine.sh
. "$here/machine.sh"

end() {
  [ ! -e "$work/machine.pid" ] || shut_down || kill "$(cat "$work/machine.pid")" || true
  rm -rf "$work"
}

wheels() { # of the checkout, and what it needs for the machine's Python
  for lock in server agent; do
    cmp -s "$tree/requirements/$lock.lock" "$folder/wheels/$lock.lock" ||
      "$tree/.venv/bin/pip" download -q --no-deps --require-hashes --python-version 3.11 \
        --only-binary :all: -d "$folder/wheels" -r "$tree/requirements/$lock.lock"
    cp "$tree/requirements/$lock.lock" "$folder/wheels/"
  done
  "$tree/.venv/bin/pip" wheel -q --no-deps --no-build-isolation -w "$work/wheels" "$tree"
}

install_product() {
  mkdir "$work/system"
  tar -C "$work/system" -xf "$folder/systemd.tar"
  mkdir -p -m 700 "$work/system$desk"
  wheels
  in_root --bind-ro="$folder/wheels:/wheels" --bind-ro="$work/wheels:/own" sh -ec '
    python3 -m venv /opt/pilotwave
    /opt/pilotwave/bin/pip install -q --no-index --find-links /wheels --find-links /own \
      "pilotwave[server,cli,onnxruntime]"'
  cp -R "$tree/examples/digits" "$here/probe.py" "$here/break_out.py" "$work/system/opt/"
  "$tree/.venv/bin/python" "$here/agent_versions.py" "$work/system$desk/agents" > "$work/agents"
  mkdir -p "$work/system/etc/pilotwave/tls"
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=try \
    -addext subjectAltName=IP:127.0.0.1 -out "$work/system/etc/pilotwave/tls/cert.pem" \
    -keyout "$work/system/etc/pilotwave/tls/key.pem" 2> /dev/null
}

answers() { within 'python3 -c "
import urllib.request as r; r.urlopen(\"https://127.0.0.1/readyz\", timeout=3)"' > /dev/null 2>&1; }

runs_version() { # MODEL VERSION STATE, as the server knows it
  within "pilotwave devices show cam-1 --json" 2> /dev/null | "$tree/.venv/bin/python" -c '
import json, sys
wanted = dict(zip(("model", "current_version", "state"), sys.argv[1:]))
models = json.load(sys.stdin)["models"]
sys.exit(not any(wanted.items() <= model.items() for model in models))' "$@"
}

main_pid() { within "systemctl show $1 -p MainPID --value"; }

restarted() { # UNIT OLD-PID: another process runs, and is ready
  [ "$(main_pid "$1")" != "$2" ] && within "systemctl is-active -q $1"
}

kill_main() { # UNIT SIGNAL SECONDS SENTENCE
  pid=$(main_pid "$1")
  within "kill -$2 $pid"
  wait_for "$3" "$4" restarted "$1" "$pid"
}

try_hang() { # UNIT: with a sign of life every 10 s it is let be; stopped, it is replaced
  within "mkdir -p /run/systemd/system/$1.service.d
    printf '[Service]\nWatchdogSec=10\n' > /run/systemd/system/$1.service.d/try.conf
    systemctl daemon-reload; systemctl restart $1"
  sleep 25
  [ "$(within "systemctl show $1 -p NRestarts --value")" = 0 ] || fail "$1 gave no sign of life"
  kill_main "$1" STOP 90 "$1 is back from a hang (watchdog of 10 s)"
  within "rm /run/systemd/system/$1.service.d/try.conf; systemctl daemon-reload
    systemctl restart $1"
}

probe() { # WHO DATA: its unit, with the probe in place of its program
  within "sed -e 's#^ExecStart=.*#ExecStart=/opt/pilotwave/bin/python /opt/probe.py $2 $1#' \
    -e 's/^Type=.*/Type=oneshot/' -e '/^Restart/d;/^Watchdog/d;/^NotifyAccess/d' \
    /etc/systemd/system/pilotwave-$1.service > /run/systemd/system/probe-$1.service
    systemctl daemon-reload; systemctl start probe-$1 || :
    journalctl -u probe-$1 -o cat --no-pager | grep -E '^(ok|BAD)'" | tee "$work/probe"
  grep -q '^ok' "$work/probe" || fail "the probe of the $1 did not run"
  ! grep '^BAD' "$work/probe" || fail "the sandbox of the $1 is not as it should be"
  within "systemd-analyze security pilotwave-$1 --no-pager | tail -1"
}

set_up_server() {
  within "pilotwave-server install --port 443 --tls-cert /etc/pilotwave/tls/cert.pem \
      --tls-key /etc/pilotwave/tls/key.pem
    install -d -m 700 -o pilotwave-server $SERVER
    runuser -u pilotwave-server -- /opt/pilotwave/bin/pilotwave-server init --data $SERVER \
      --fleet try --token-file $SERVER/token > /dev/null
    mv $SERVER/token $desk/token
    echo PILOTWAVE_POLL_INTERVAL_S=2 > /etc/pilotwave/server.env
    echo PILOTWAVE_CHECK_IN_INTERVAL_S=5 >> /etc/pilotwave/server.env
    systemctl restart pilotwave-server"
  wait_for 60 "the server answers by HTTPS on port 443" answers
}

try_server() {
  probe server $SERVER
  kill_main pilotwave-server KILL 60 "the server is back from kill -9"
  try_hang pilotwave-server
  wait_for 60 "it answers" answers
}

set_up_agent() {
  within "pilotwave keys init --plain > /dev/null
    pilotwave models create detector --publisher keys/publisher.pem
    pilotwave models create intruder --publisher keys/publisher.pem
    pilotwave models create pilotwave-agent --publisher keys/publisher.pem --yes
    pilotwave groups create here --selector site=here
    code=\$(pilotwave codes create --label site=here --json |
      python -c 'import json, sys; print(json.load(sys.stdin)[\"items\"][0][\"code\"])')
    pilotwave-agent enrol --server https://127.0.0.1 --name cam-1 --code \$code \
      --root keys/root.json --data $DEVICE --ca-file /etc/pilotwave/tls/cert.pem
    { echo probation_s = 5; echo self_update_timeout_s = 40; echo allow_unsafe_formats = true
      cat $DEVICE/agent.toml; } > agent.toml; cp agent.toml $DEVICE/agent.toml
    pilotwave-agent install --data $DEVICE"
  publish detector 1.0.0 /opt/digits/1.0.0
  wait_for 120 "the device runs detector 1.0.0" runs_version detector 1.0.0 healthy
  within "pilotwave-agent status --data $DEVICE" | tee "$work/status"
}

publish() { # MODEL VERSION FOLDER WORDS…
  model=$1 version=$2 from=$3
  shift 3
  within "pilotwave publish $model $version --variant v=$from --key keys/publisher.pem --yes \
    --no-try $* > /dev/null && pilotwave assign $model $version --group here --yes"
}

try_agent() {
  probe agent $DEVICE
  kill_main pilotwave-agent KILL 60 "the agent is back from kill -9"
  try_hang pilotwave-agent
}

try_intruder() {
  within "install -D /opt/break_out.py intruder/break_out.py
    printf '127.0.0.1 443\n$DEVICE\n' > intruder/where.txt
    cp -R intruder /opt; ! runuser -u pilotwave -- /opt/intruder/break_out.py
    pkill -f 'sleep [9]87654'" > "$work/free"
  grep -q 'reached the server.*key' "$work/free" || fail "unconfined, the intruder gets nowhere"
  publish intruder 1.0.0 $desk/intruder --unsafe-format --runtime command \
    --entrypoint break_out.py
  wait_for 60 "the intruder passed: it got nowhere" runs_version intruder 1.0.0 healthy
  ! within "pgrep -f 'sleep [9]87654'" || fail "a process of the intruder outlived its test"
}

agent_version() { sed -n "s/^$1 //p" "$work/agents"; }

publish_agent() { # NAME
  publish pilotwave-agent "$(agent_version "$1")" "$desk/agents/$1" --unsafe-format \
    --not-secret "$(cd "$work/system$desk/agents/$1" && ls ./*.whl | cut -c3-)"
}

try_agent_versions() {
  good=$(agent_version good)
  publish_agent good
  wait_for 180 "a good agent is healthy" runs_version pilotwave-agent "$good" healthy
  for bad in dies hangs; do
    publish_agent "$bad"
    wait_for 240 "the good agent is back from one that $bad" \
      runs_version pilotwave-agent "$good" rolled_back
  done
}

on_trial() { [ -e "$work/system$DEVICE/agent/trial.json" ]; }

try_power_cut() {
  publish_agent later
  wait_for 120 "the next agent is on trial" on_trial
  cut_power
  boot
  wait_for 180 "after a power cut in its trial it is healthy" \
    runs_version pilotwave-agent "$(agent_version later)" healthy
}

try_reboot() {
  shut_down
  boot
  wait_for 90 "after a restart of the machine the server answers" answers
  publish detector 1.1.0 /opt/digits/1.1.0
  wait_for 120 "the device runs detector 1.1.0" runs_version detector 1.1.0 healthy
}

take_away() {
  within "pilotwave-agent uninstall; pilotwave-server uninstall; systemctl --failed --no-legend
    ! ls /etc/systemd/system /etc/sysusers.d | grep pilotwave
    ls $SERVER $DEVICE > /dev/null"
}

mkdir -p "$folder/wheels"
[ -s "$folder/systemd.tar" ] || mmdebstrap --variant=minbase --aptopt='Acquire::Languages "none"' \
  --include=ca-certificates,systemd,systemd-sysv,dbus,python3,python3-venv,procps \
  bookworm "$folder/systemd.tar" "${DEBIAN_MIRROR:?name a Debian mirror}"
install_product
trap end EXIT
for step in $steps; do
  echo "== $step"
  $step
done
echo "systemd: ok"
