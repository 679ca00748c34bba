#!/bin/bash
# twemproxy (Debian's nutcracker) in front of two servers of its own: the keys are shared out between
# them, and a request of many keys is cut in two and its answers put together again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$PWD
. "$here/servers.sh"
finish() {
    stop_servers
    [ -z "${proxy:-}" ] || kill "$proxy" 2>/dev/null || true
}
trap finish EXIT
same() { [ "$2" = "$3" ] || { echo "not ok $1: expected '$2', found '$3'"; exit 1; }; }

start_server left
left=$PORT
start_server right
right=$PORT
port=$(free_port)
# By their names the servers get their keys: the same ones in each run.
cat >nutcracker.yml <<EOF
pool:
  listen: 127.0.0.1:$port
  hash: fnv1a_64
  distribution: ketama
  preconnect: true
  timeout: 10000
  servers:
   - 127.0.0.1:$left:1 left
   - 127.0.0.1:$right:1 right
EOF
nutcracker --test-conf -c nutcracker.yml 2>conf || { cat conf; exit 1; }
nutcracker -c nutcracker.yml -s "$(free_port)" -a 127.0.0.1 -o nutcracker.log &
proxy=$!
await $proxy nutcracker.log answers "$port"

PORT=$port SERVER=$HOST:$port /usr/bin/python3 "$here/use_through_twemproxy.py"
for at in "$left" "$right"; do
    count=$(memcstat --servers="127.0.0.1:$at" | sed -n 's/.*curr_items: //p')
    [ "$count" -gt 100 ] || { echo "not ok server $at has $count items"; exit 1; }
done
echo ok both servers hold a part of the keys
! grep -iE 'error|invalid|unknown' nutcracker.log || { echo "not ok what twemproxy says"; exit 1; }
kill "$proxy"
wait "$proxy" || true
proxy=
