#!/bin/sh
# Stand-ins for the images that deploy/compose names, of Debian packages.
#   images.sh FOLDER [python]      with that word: of Python alone
set -eu
folder=${1:?name a folder for the roots}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"

root() { # NAME PACKAGES
  [ -s "$folder/$1.tar" ] && return
  mmdebstrap --variant=minbase --include="ca-certificates,$2" \
    --aptopt='Acquire::Languages "none"' bookworm "$folder/$1.tar" \
    "${DEBIAN_MIRROR:?name a Debian mirror}"
}

image() { # NAME, its Dockerfile on standard input
  DOCKER_BUILDKIT=0 docker build -q -t "$1" -f - "$here/stand-ins" > /dev/null
  echo "made $1"
}

root python python3,python3-venv,python-is-python3,passwd
docker import --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' \
  "$folder/python.tar" try-python > /dev/null

# what the host trusts, for pip where a proxy answers for the package index
cp /etc/ssl/certs/ca-certificates.crt "$here/stand-ins/host-ca.crt"
trap 'rm -f "$here/stand-ins/host-ca.crt"' EXIT
image python:3.11-slim <<'D'
FROM try-python
COPY host-ca.crt /etc/ssl/certs/host-ca.crt
ENV PIP_CERT=/etc/ssl/certs/host-ca.crt
D
[ "${2:-}" != python ] || exit 0

root services postgresql,gosu,nginx-light,gettext-base,mosquitto,prometheus,prometheus-alertmanager
docker import --change 'ENV LANG=C.UTF-8' "$folder/services.tar" try-services > /dev/null
image postgres:16 <<'D'
FROM try-services
ENV PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin PGDATA=/var/lib/postgresql/data
COPY postgres.sh /
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh", "/postgres.sh"]
D
image nginx:1.28 <<'D'
FROM try-services
COPY nginx.sh /
ENTRYPOINT ["/bin/sh", "/nginx.sh"]
D
image eclipse-mosquitto:2 <<'D'
FROM try-services
RUN install -d -o mosquitto /mosquitto/data /mosquitto/log
ENTRYPOINT ["mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
D
image prom/prometheus:v2.53.4 <<'D'
FROM try-services
RUN install -d -o nobody /prometheus
USER nobody
ENTRYPOINT ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
D
image prom/alertmanager:v0.28.1 <<'D'
FROM try-services
RUN install -d -o nobody /alertmanager
USER nobody
ENTRYPOINT ["prometheus-alertmanager", "--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"]
D
