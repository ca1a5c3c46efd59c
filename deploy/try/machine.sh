# A machine with systemd, booted by systemd-nspawn; sourced. It has a network of its own with the
# loopback address alone. What it is comes from $work/system, what runs it is in $work/machine.pid.
# shellcheck shell=sh

desk=/srv/try # the operator's folder in the machine

# What the machine's own programs may ask of the kernel beside the usual: models are fenced by it.
landlock="landlock_create_ruleset landlock_add_rule landlock_restrict_self"

in_root() { # run a program in the root that is not booted
  systemd-nspawn --quiet --register=no --keep-unit --pipe --directory="$work/system" "$@"
}

first() { # the number of the machine's first process, as the host counts
  for pid in $(pgrep -P "$(cat "$work/machine.pid")"); do
    [ "$(cat "/proc/$pid/comm")" = systemd ] && echo "$pid"
  done
}

within() { # run a shell command in the machine
  nsenter -t "$(first)" -a env -i LANG=C.UTF-8 HOME="$desk" PILOTWAVE_KEYS="$desk/keys" \
    PILOTWAVE_URL=https://127.0.0.1 SSL_CERT_FILE=/etc/pilotwave/tls/cert.pem \
    PILOTWAVE_TOKEN="$(cat "$work/system$desk/token" 2> /dev/null)" \
    PATH=/opt/pilotwave/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -ec "cd $desk; $1"
}

is_up() { within 'systemctl is-system-running' 2> /dev/null | grep -qE 'running|degraded'; }

boot() {
  setsid systemd-nspawn --register=no --keep-unit --boot --machine=pilotwave-try \
    --directory="$work/system" --private-network --system-call-filter="$landlock" \
    > "$work/machine.log" 2>&1 < /dev/null &
  echo $! > "$work/machine.pid"
  wait_for 60 "the machine runs" is_up
}

cut_power() {
  kill -KILL "$(first)"
  wait_for 30 "the machine is off" is_off
}

shut_down() {
  is_off && return
  kill -RTMIN+4 "$(first)"
  wait_for 60 "the machine is off" is_off
}

is_off() { ! kill -0 "$(cat "$work/machine.pid")" 2> /dev/null; }

wait_for() { # SECONDS SENTENCE COMMAND…: until it succeeds; say how long that took
  limit=$1 sentence=$2
  shift 2
  began=$(date +%s.%N)
  until "$@"; do
    awk "BEGIN { exit !($(date +%s.%N) - $began > $limit) }" &&
      fail "not within $limit s: $sentence"
    sleep 0.2
  done
  echo "$sentence: after $(awk "BEGIN { printf \"%.1f\", $(date +%s.%N) - $began }") s"
}

fail() {
  echo "$1" >&2
  exit 1
}
