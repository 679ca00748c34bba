#!/bin/bash
# libmemcached's command line tools.
set -eu
s=--servers=$SERVER
ok() { echo "ok $*"; }
fail() {
    echo "not ok $*"
    exit 1
}
# same WHAT EXPECTED FOUND
same() { [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"; }

memcping "$s"
ok memcping

mkdir -p files
put() { printf '%s' "$2" >"files/$1"; memccp "$s" --set "files/$1"; }
named=greeting
put $named "hello there"
same memccp "hello there" "$(memccat "$s" $named)"
ok memccp and memccat of a named key
head -c 500000 /dev/urandom >files/large
memccp "$s" files/large
memccat "$s" --file=files/back large
cmp -n 500000 files/large files/back
ok memccp and memccat of 500,000 bytes

memcexist "$s" $named
! memcexist "$s" nothing 2>/dev/null || fail memcexist of what is not there
memctouch "$s" --expire=1000 $named
memcrm "$s" $named
! memcexist "$s" $named 2>/dev/null || fail memcrm
! memccat "$s" $named 2>/dev/null || fail memccat of what is not there
ok memcexist memctouch memcrm of a named key

if [ "$TYPED" = 1 ]; then
    put 2.1 41
    put 1.17 $'5\n7 9'
    put 3.1 "some data"
    same COUNTER 41 "$(memccat "$s" 2.1)"
    same INDEX $'5 0\n7 9' "$(memccat "$s" 1.17)"
    same DATA "some data" "$(memccat "$s" 3.1)"
    ok memccp and memccat of COUNTER, INDEX, DATA
    for key in 2.1 1.17 3.1; do
        memcexist "$s" $key || fail "memcexist $key"
        memctouch "$s" --expire=1000 $key || fail "memctouch $key"
        memcrm "$s" $key || fail "memcrm $key"
        ! memcexist "$s" $key 2>/dev/null || fail "memcexist $key after memcrm"
        ! memctouch "$s" --expire=1000 $key 2>/dev/null || fail "memctouch $key after memcrm"
    done
    ok memcexist memctouch memcrm of COUNTER, INDEX, DATA
    printf x >files/2.2
    ! memccp "$s" files/2.2 2>/dev/null || fail "memccp of x into a COUNTER"
    ok memccp of what a COUNTER does not hold fails
fi

memcstat "$s" | grep -q curr_items
memcstat "$s" | grep -q version
ok memcstat
memcstat "$s" --analyze >analysis
grep -q "Average Item Size" analysis
ok memcstat --analyze

for clients in 1 8 32; do
    for test in set get mget; do
        memcslap "$s" --test=$test --concurrency=$clients --execute-number=200 >slap 2>&1 ||
            fail "memcslap $test $clients: $(cat slap)"
        ! grep -qiE "error|fail" slap || fail "memcslap $test $clients: $(cat slap)"
        ok "memcslap --test=$test --concurrency=$clients"
    done
done
memcslap "$s" --test=set --concurrency=8 --execute-number=200 --noreply >slap 2>&1
memcping "$s"
ok memcslap --noreply

memcaslap "$s" --concurrency=8 --threads=1 --execute_number=2000 >slap 2>&1 || fail "memcaslap: $(cat slap)"
# Its mix is of a tenth of sets; what it gets it has set.
grep -qE '^cmd_get: *[1-9]' slap || fail "memcaslap: $(cat slap)"
grep -qE '^get_misses: *0' slap || fail "memcaslap: $(cat slap)"
! grep -iE 'error|fail' slap || fail "memcaslap: $(cat slap)"
ok memcaslap

# These two ask no server.
[[ $(memcerror 16) == *"NOT FOUND"* ]] || fail "memcerror: $(memcerror 16)"
memcparse "--SERVER=$SERVER" >parsed 2>&1 || fail "memcparse: $(cat parsed)"
ok memcerror memcparse

put dumped value
memcdump "$s" >dump
if [ "$TYPED" = 1 ]; then
    put 1.17 5
    put 2.1 41
    put 3.1 "some data"
    memcdump "$s" >dump
    for key in dumped 1.17 2.1 3.1; do
        grep -qx "$key" dump || fail "memcdump has no $key: $(sort dump | head -20)"
    done
fi
memcping "$s"
ok memcdump

memcflush "$s"
! memccat "$s" dumped 2>/dev/null || fail memcflush
ok memcflush
