#!/bin/bash
# Real memcached clients against the daemon.
#
#   tests/clients/run.sh BINARY [CLIENT]     against this storage_server
#   tests/clients/run.sh --memcached [CLIENT]  against memcached: checks the scripts themselves,
#                                            named keys only
#
# Each client is one file beside this one. It runs in a directory of its own, gets HOST, PORT, SERVER,
# LOG (what the server says), BINARY and TYPED (0 against memcached) in its environment, and prints
# `ok WHAT` for each thing that worked; it fails if one did not. A client that is not installed is a
# failure: see tests/install-clients.sh. README.md tells which clients these are. Many end by emptying the
# server: each brings the keys that it needs.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
BINARY=${1:?usage: run.sh BINARY|--memcached [CLIENT]}
[ "$BINARY" = --memcached ] || BINARY=$(realpath "$BINARY")
export BINARY
only=${2:-}
export HOST=127.0.0.1 LC_ALL=C PYTHONDONTWRITEBYTECODE=1
fetched=${CARGO_TARGET_DIR:-$here/../../target}/clients
export PYTHONPATH=$here NODE_PATH=$fetched/node_modules
work=$(mktemp -d)
. "$here/servers.sh"
finish() {
    stop_servers
    rm -rf "$work"
}
trap finish EXIT

start_server main
TYPED=1
[ "$BINARY" = --memcached ] && TYPED=0
export PORT TYPED SERVER=$HOST:$PORT LOG=$work/main.log

number=0
failed=0
# Numbers the lines of a client; its last words are shown if it fails.
client() {
    local name=$1
    shift
    [ -z "$only" ] || [ "$only" = "$name" ] || return
    mkdir "$work/$name"
    (cd "$work/$name" && timeout 120 "$@") >"$work/out" 2>"$work/err" </dev/null
    local status=$?
    while read -r word what; do
        [ "$word" = ok ] || continue
        number=$((number + 1))
        echo "ok $number $name: $what"
    done <"$work/out"
    if [ $status != 0 ]; then
        failed=$((failed + 1))
        echo "not ok $name: status $status"
        sed 's/^/    /' "$work/out" "$work/err" | tail -40
    fi
    if ! kill -0 "${servers[0]}" 2>/dev/null; then
        echo "not ok $name: the server is gone"
        cat "$LOG"
        exit 1
    fi
}

debian_python=/usr/bin/python3
python=$fetched/python/bin/python3
client tools bash "$here/libmemcached_tools.sh"
client libmemcached bash "$here/libmemcached.sh" "$here/libmemcached.c"
client pylibmc $debian_python "$here/use_pylibmc.py"
client pymemcache bash "$here/pymemcache.sh"
client python-memcached $debian_python "$here/use_python_memcached.py"
client aiomcache "$python" "$here/use_aiomcache.py"
client emcache "$python" "$here/use_emcache.py"
client Cache::Memcached perl "$here/cache_memcached.pl"
client Cache::Memcached::Fast perl "$here/cache_memcached_fast.pl"
client php-memcached php "$here/use_php_memcached.php"
client php-sessions bash "$here/php_sessions.sh" "$here/php_session.php"
client node-memcached node "$here/use_node_memcached.js"
client gomemcache bash "$here/gomemcache.sh" "$here/gomemcache.go"
client spymemcached bash "$here/spymemcached.sh" "$here/Spymemcached.java"
client twemproxy bash "$here/twemproxy.sh"
client monitors bash "$here/monitors.sh"
client memcached_exporter $debian_python "$here/as_memcached_exporter.py"
client binary bash "$here/binary.sh"
client TLS bash "$here/tls.sh"
client meta-memcache "$python" "$here/use_meta_memcache.py"
client memcached-tool bash "$here/memcached_tool.sh"
client memccapable bash "$here/memccapable.sh"

if [ $number = 0 ] || [ $failed != 0 ]; then
    echo "$failed clients failed"
    exit 1
fi
echo "$number ok"
