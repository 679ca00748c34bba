#!/bin/bash
# memcached-tool, which comes with memcached: display, stats, settings, sizes, keys, and a dump that is
# restored into another server.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$PWD
. "$here/servers.sh"
trap stop_servers EXIT
fail() {
    echo "not ok $*"
    exit 1
}
tool() { # PORT MODE
    perl /usr/share/memcached/scripts/memcached-tool "$HOST:$1" "$2" 2>errors || fail "$2: $(cat errors)"
}

start_server full
full=$PORT
start_server empty
empty=$PORT
mkdir values
put() { # KEY VALUE [SECONDS]
    printf '%s' "$2" >"values/$1"
    memccp --servers="$HOST:$full" --set --flag=7 --expire="${3:-0}" "values/$1"
}
for n in $(seq 50); do printf 'value %s\r\nof two lines' "$n" >"values/tool:$n"; done
memccp --servers="$HOST:$full" --set --flag=7 values/tool:*
put tool:brief "expires" 100000
put "tool:%41" "a key with a percent sign"
put tool:empty ""
if [ "$TYPED" = 1 ]; then
    put 1.17 $'5 0\n7 9'
    put 2.5 41
    put 3.9 "some data"
fi

tool "$full" stats >stats
grep -qE 'curr_items +[1-9]' stats || fail "stats: $(cat stats)"
tool "$full" settings >settings
grep -qE 'maxconns +[1-9]' settings || fail "settings: $(cat settings)"
tool "$full" sizes >sizes
grep -qE 'sizes_status|^ +[0-9]+ +[0-9]+' sizes || fail "sizes: $(cat sizes)"
echo ok stats settings sizes

tool "$full" display >display
grep -q 'Item_Size' display || fail "display: $(cat display)"
if [ "$TYPED" = 1 ]; then
    for class in 1 2 3; do
        awk -v class=$class '$1 == class && $5 == 1 { found = 1 } END { exit !found }' display ||
            fail "display has no class $class with 1 item: $(cat display)"
    done
fi
items=$(awk 'NR > 1 { sum += $5 } END { print sum }' display)
[ "$items" = "$(ls values | wc -l)" ] || fail "display shows $items items: $(cat display)"
echo ok display: a line a class, with the number of its items

[ "$(tool "$full" keys | wc -l)" = "$(ls values | wc -l)" ] || fail "keys: $(tool "$full" keys)"
tool "$full" dump >dump
# As its manual says: the dump is what a connection is sent.
exec 3<>"/dev/tcp/$HOST/$empty"
{ cat dump; printf 'quit\r\n'; } >&3
cat <&3 >replies
exec 3<&-
[ "$(grep -c '^STORED' replies)" = "$(ls values | wc -l)" ] || fail "restoring: $(cat replies)"
echo ok keys, dump, and the dump restored into another server

for value in values/*; do
    key=${value#values/}
    memccat --servers="$HOST:$empty" --file=found "$key" || fail "memccat of $key"
    cmp -s "$value" found || fail "the value of $key"
    memccat --servers="$HOST:$empty" --flag "$key" | grep -qx 7 || fail "the flags of $key"
done
metadump() {
    exec 3<>"/dev/tcp/$HOST/$1"
    printf 'lru_crawler metadump all\r\n' >&3
    sed -n '/^END/q; s/^\(key=[^ ]* exp=[^ ]*\) .*/\1/p' <&3 | sort
    exec 3<&-
}
[ "$(metadump "$full")" = "$(metadump "$empty")" ] || fail "the keys and expiries"
[ "$(metadump "$empty" | grep -vc 'exp=-1')" = 1 ] || fail "expiries: $(metadump "$empty")"
echo ok every value, flags and expiry of the dump are there
