# Servers for the scripts of this folder, each on a port of its own; sourced, with BINARY and work set.
#
# start_server NAME starts storage_server, or memcached if BINARY is --memcached, and waits until it
# answers; PORT is where, "$work/NAME.log" is what it says. stop_servers ends all of them.

servers=()

# The start is awaited by asking, for at most ten seconds.
await() { # PID LOG COMMAND...
    local pid=$1 log=$2 tries=0
    shift 2
    until "$@"; do
        tries=$((tries + 1))
        if [ $tries -gt 200 ] || ! kill -0 "$pid" 2>/dev/null; then
            echo "the server does not answer:" >&2
            cat "$log" >&2
            exit 1
        fi
        sleep 0.05
    done
}

# A port that was free a moment ago.
free_port() {
    /usr/bin/python3 -c '
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1])'
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start_daemon() {
    local name=$1
    cat >"$work/$name.ini" <<EOF
[server]
listen = "127.0.0.1:0"
[data]
dir = "$work/$name.data"
[types]
3 = "DATA"
4 = "COUNTER"
6 = "COUNTER64"
EOF
    run_daemon "$name"
}

# Runs storage_server with "$work/NAME.ini".
run_daemon() {
    local name=$1
    "$BINARY" -c "$work/$name.ini" >"$work/$name.log" 2>&1 &
    servers+=($!)
    await $! "$work/$name.log" grep -qE 'listening on (tls:)?127.0.0.1:[0-9]' "$work/$name.log"
    PORT=$(sed -nE 's/.*listening on (tls:)?127\.0\.0\.1:([0-9]*).*/\2/p' "$work/$name.log" | head -1)
}

start_memcached() { # NAME ARGUMENT...
    local name=$1 user=()
    shift
    [ "$(id -u)" = 0 ] && user=(-u root)
    PORT=$(free_port)
    memcached "${user[@]}" -l 127.0.0.1 -p "$PORT" -U 0 "$@" >"$work/$name.log" 2>&1 &
    servers+=($!)
    await $! "$work/$name.log" answers "$PORT"
}

start_server() {
    : >"$work/$1.log"
    if [ "$BINARY" = --memcached ]; then start_memcached "$1"; else start_daemon "$1"; fi
}

stop_servers() {
    [ ${#servers[@]} = 0 ] && return
    kill "${servers[@]}" 2>/dev/null
    wait "${servers[@]}" 2>/dev/null
    servers=()
}
