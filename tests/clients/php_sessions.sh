#!/bin/bash
# PHP's sessions in php-memcached: every request is a process, and locks its session (`add lock.ID`).
set -eu
script=$1
request() { # ID ACTION [SETTING...]
    local id=$1 action=$2
    shift 2
    php -d session.save_handler=memcached -d session.save_path="$SERVER" \
        -d session.use_cookies=0 -d session.cache_limiter= -d memcached.sess_locking=1 \
        -d memcached.sess_lock_wait_min=1 -d memcached.sess_lock_wait_max=5 \
        -d memcached.sess_lock_retries=10000 -d memcached.sess_binary_protocol=0 "$@" \
        "$script" "$id" "$action"
}
same() { [ "$2" = "$3" ] || { echo "not ok $1: expected '$2', found '$3'"; exit 1; }; }

same "the first visit" "1 1 alice" "$(request alice visit)"
same "the second" "2 2 alice" "$(request alice visit)"
same "of another" "1 1 bob" "$(request bob visit)"
echo ok a session is there in the next process, with the cart

read -r visits _ id <<<"$(request alice regenerate)"
same visits 3 "$visits"
same "under the new id" "4 4 $id" "$(request "$id" visit)"
same "the old id is a new session" "1 1 alice" "$(request alice visit)"
echo ok session_regenerate_id moves it

request bob destroy >/dev/null
same "after session_destroy" "1 1 bob" "$(request bob visit)"
echo ok session_destroy removes it

# The requests of one session wait for each other: no visit is lost.
pids=()
for _ in 1 2 3 4 5 6 7 8; do
    request carol visit >/dev/null &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
same "after 8 visits at once" "9 9 carol" "$(request carol visit)"
echo ok 8 requests at once: the lock loses no visit

if [ "$TYPED" = 1 ]; then
    # A DATA type for sessions: the prefix makes the key, the id is its number.
    typed() { request "$1" visit -d memcached.sess_prefix=3. -d memcached.sess_locking=0; }
    same "a session of type 3" "1 1 77001" "$(typed 77001)"
    same "and again" "2 2 77001" "$(typed 77001)"
    memcexist --servers="$SERVER" 3.77001
    echo ok sessions in a DATA type, by the prefix
fi
