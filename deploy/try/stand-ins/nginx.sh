#!/bin/sh
# As much of the nginx image's start as the compose file needs: templates are filled in.
set -eu
rm -f /etc/nginx/sites-enabled/default
names=$(env | sed -n 's/^\(PILOTWAVE_[A-Z_]*\)=.*/${\1}/p' | tr '\n' ' ')
for template in /etc/nginx/templates/*.template; do
  name=$(basename "$template" .template)
  envsubst "$names" < "$template" > "/etc/nginx/conf.d/$name"
done
exec nginx -g 'daemon off;'
