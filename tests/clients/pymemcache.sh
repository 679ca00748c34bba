#!/bin/bash
# pymemcache with the server of all, and its shutdown with one of its own, which must end by that.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$PWD
. "$here/servers.sh"
trap stop_servers EXIT

/usr/bin/python3 "$here/use_pymemcache.py"
if [ "$BINARY" = --memcached ]; then start_memcached own -A; else start_daemon own; fi
PORT=$PORT /usr/bin/python3 "$here/use_pymemcache.py" shutdown
status=0
wait "${servers[0]}" || status=$?
servers=()
[ $status = 0 ] || { echo "not ok shutdown: status $status: $(cat own.log)"; exit 1; }
echo ok shutdown
