#!/bin/sh
# Write what compose.yml needs and nobody should choose: passwords, keys, Mosquitto's files, and a
# certificate for trying it. What is there already stays.
#   sh setup.sh DOMAIN FLEET
set -eu
umask 077

domain=${1:?name the address at which devices come, as fleet.example.org}
fleet=${2:?name the fleet}
cd "$(dirname "$0")"
mkdir -p secrets/tls secrets/mosquitto
# the users of the containers, who have other numbers, read these two folders where they are mounted;
# nobody else on this machine gets through the folder above them
chmod 0700 secrets
chmod 0755 secrets/tls secrets/mosquitto

if [ ! -s .env ]; then
  {
    echo "DOMAIN=$domain"
    echo "FLEET=$fleet"
    echo "POSTGRES_PASSWORD=$(openssl rand -hex 24)"
    echo "KEY_ENCRYPTION_KEY=$(openssl rand -base64 32)"
    echo "MQTT_PASSWORD=$(openssl rand -hex 24)"
    echo "GRAFANA_PASSWORD=$(openssl rand -hex 12)"
  } > .env.new
  mv .env.new .env
fi

if [ ! -s secrets/tls/cert.pem ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 \
    -subj "/CN=$domain" -addext "subjectAltName=DNS:$domain" \
    -keyout secrets/tls/key.pem -out secrets/tls/cert.pem 2> /dev/null
  chmod 0644 secrets/tls/cert.pem secrets/tls/key.pem
  echo "secrets/tls: a certificate that vouches for itself, for 90 days; put a real one in its place"
fi

sed "s|/acme/|/$fleet/|; s|for the fleet \`acme\`|for the fleet \`$fleet\`|" \
  ../../examples/mosquitto/pilotwave.acl > secrets/mosquitto/acl
if [ ! -s secrets/mosquitto/passwords ]; then
  password=$(sed -n 's/^MQTT_PASSWORD=//p' .env)
  mosquitto_passwd -c -b secrets/mosquitto/passwords pilotwave-server "$password"
fi
chmod 0644 secrets/mosquitto/acl secrets/mosquitto/passwords
sh ../../docker/pin-images.sh --check .env compose.yml || echo "the images go by their tags until then"
echo "ready: docker compose -f deploy/compose/compose.yml up --build -d"
