#!/bin/bash
# Real memcached clients against the daemon.
#
#   tests/clients/run.sh BINARY [CLIENT]     against this storage_server
#   tests/clients/run.sh --memcached [CLIENT]  against memcached: checks the scripts themselves,
#                                            named keys only
#
# Each client is one file beside this one. It gets HOST, PORT, SERVER and TYPED (0 against
# memcached) in its environment, and prints `ok WHAT` for each thing that worked; it fails if one
# did not. A client that is not installed is a failure: see tests/install-clients.sh.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
binary=${1:?usage: run.sh BINARY|--memcached [CLIENT]}
only=${2:-}
export HOST=127.0.0.1 LC_ALL=C PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d)
: >"$work/log"
server=
finish() {
    [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

# The start is awaited by asking, for at most ten seconds.
await() {
    local tries=0
    until "$@"; do
        tries=$((tries + 1))
        if [ $tries -gt 200 ] || ! kill -0 "$server" 2>/dev/null; then
            echo "the server does not answer:" >&2
            cat "$work/log" >&2
            exit 1
        fi
        sleep 0.05
    done
}

start_daemon() {
    cat >"$work/config.ini" <<EOF
[server]
listen = "127.0.0.1:0"
[data]
dir = "$work/data"
[types]
3 = "DATA"
4 = "COUNTER"
6 = "COUNTER64"
EOF
    "$binary" -c "$work/config.ini" >"$work/log" 2>&1 &
    server=$!
    await grep -q 'listening on 127.0.0.1:[0-9]' "$work/log"
    PORT=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/log" | head -1)
    TYPED=1
}

start_memcached() {
    local user=()
    [ "$(id -u)" = 0 ] && user=(-u root)
    PORT=$((20000 + RANDOM % 10000))
    memcached "${user[@]}" -l 127.0.0.1 -p $PORT -U 0 >"$work/log" 2>&1 &
    server=$!
    await bash -c "exec 3<>/dev/tcp/127.0.0.1/$PORT" 2>/dev/null
    TYPED=0
}

if [ "$binary" = --memcached ]; then start_memcached; else start_daemon; fi
export PORT TYPED SERVER=$HOST:$PORT

number=0
failed=0
# Numbers the lines of a client; its last words are shown if it fails.
client() {
    local name=$1
    shift
    case $name in *"$only"*) ;; *) return ;; esac
    (cd "$work" && timeout 120 "$@") >"$work/out" 2>"$work/err"
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
    if ! kill -0 "$server" 2>/dev/null; then
        echo "not ok $name: the server is gone"
        cat "$work/log"
        exit 1
    fi
}

client tools bash "$here/libmemcached_tools.sh"
client libmemcached bash "$here/libmemcached.sh" "$here/libmemcached.c"
client pylibmc /usr/bin/python3 "$here/use_pylibmc.py"
client pymemcache /usr/bin/python3 "$here/use_pymemcache.py"
client python-memcached /usr/bin/python3 "$here/use_python_memcached.py"
client Cache::Memcached perl "$here/cache_memcached.pl"
# Last: it empties the server.
client memccapable bash "$here/memccapable.sh"

if [ $number = 0 ] || [ $failed != 0 ]; then
    echo "$failed clients failed"
    exit 1
fi
echo "$number ok"
