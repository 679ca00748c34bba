#!/bin/bash
# memcached's binary protocol, and SASL with it, cannot work: the connection is closed, and one line of the
# log says why. memcached itself speaks it.
set -eu
fail() {
    echo "not ok $*"
    exit 1
}
if [ "$TYPED" = 0 ]; then
    printf value >stored
    memccp --binary --servers="$SERVER" --set stored
    echo ok memcached speaks the binary protocol
    exit 0
fi
told() { grep -c "memcached's binary protocol" "$LOG" || true; }
refused() { # WHAT COMMAND...
    local what=$1 before
    shift
    before=$(told)
    ! timeout 10 "$@" >out 2>&1 || fail "$what: $(cat out)"
    # The log is written after the connection is closed.
    for _ in $(seq 200); do
        [ "$(told)" -gt "$before" ] && break
        sleep 0.05
    done
    [ "$(told)" -gt "$before" ] || fail "$what: nothing in the log: $(tail -3 "$LOG")"
}

printf value >stored
refused memccp memccp --binary --servers="$SERVER" --set stored
echo ok a binary request: closed, and told
refused SASL memccp --binary --username=user --password=secret --servers="$SERVER" --set stored
echo ok SASL: closed, and told
refused pylibmc /usr/bin/python3 -c "
import pylibmc
pylibmc.Client(['$SERVER'], binary=True, username='user', password='secret').set('stored', 1)"
echo ok pylibmc with SASL: an error, and told
! memccat --servers="$SERVER" stored 2>/dev/null || fail "something was stored"
memcping --servers="$SERVER"
