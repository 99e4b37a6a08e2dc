#!/usr/bin/env bash
# Makes what the stack in docker-compose.yml has to keep secret, once: deploy/compose/make_secrets.sh [FOLDER]
#
# Passwords are random. What exists is kept, but for the list of Redis' users, which follows from the rest: run it again
# after users.acl.in has changed, or after you have deleted a password to have another one.
#
# The folder is its owner's alone; the files in it can be read by whoever reaches them, because each is mounted into
# containers that run under users of their own.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/secrets}
users=(producer gateway worker observer exporter operator)

umask 077
mkdir -p "$folder"
chmod 700 "$folder"
random() { head -c 32 /dev/urandom | sha256sum | cut -c1-48; }
keep() { # name, content: unless it is there; whole or not at all
  [ -s "$folder/$1" ] || { printf '%s\n' "$2" >"$folder/.$1" && mv "$folder/.$1" "$folder/$1"; }
}

for user in "${users[@]}"; do
  keep "redis_url_$user" "redis://$user:$(random)@redis:6379/0"
done
for user in health backup; do
  keep "redis_password_$user" "$(random)"
done
keep flower_basic_auth "fleet:$(random)"
keep grafana_admin_password "$(random)"
# The model hub's, for gated and private models; nobody can make that up, and an empty one means none.
[ -e "$folder/hub_token" ] || : >"$folder/hub_token"

password_of() {
  case $1 in
    health | backup) cat "$folder/redis_password_$1" ;;
    *) sed -E 's|^[a-z]+://[^:]*:([^@]*)@.*|\1|' "$folder/redis_url_$1" ;;
  esac
}
acl=$(awk '/^#/ || /^ *$/ { next } /^user/ && NR > 1 { if (line) print line; line = $0; next } { sub(/^ +/, ""); line = line " " $0 }
  END { print line }' "$here/users.acl.in")
for user in health backup "${users[@]}"; do
  hash=$(printf %s "$(password_of "$user")" | sha256sum | cut -d' ' -f1)
  acl=$(sed -E "s|^(user $user on )password |\1#$hash |" <<<"$acl")
done
printf '%s\n' "$acl" >"$folder/.redis_users" && mv "$folder/.redis_users" "$folder/redis_users"
chmod 444 "$folder"/*
chmod 644 "$folder/hub_token"
echo "secrets are in $folder"
