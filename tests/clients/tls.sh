#!/bin/bash
# Clients that are not ours speak TLS to a server that asks for a login: openssl, and Python's ssl, alone
# and in pymemcache.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$PWD
. "$here/servers.sh"
trap stop_servers EXIT
fail() {
    echo "not ok $*"
    exit 1
}

# An authority, a certificate of the server's that it has signed, and an authority that has not.
authority() { # NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
        -keyout "$1.key" -out "$1.pem" 2>>openssl.log || fail "openssl: $(cat openssl.log)"
}
authority ours
authority other
cat >names <<EOF
subjectAltName = DNS:localhost, IP:127.0.0.1
EOF
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
    -keyout server.key -out server.csr 2>>openssl.log
openssl x509 -req -in server.csr -CA ours.pem -CAkey ours.key -CAcreateserial -days 2 \
    -extfile names -out server.pem 2>>openssl.log || fail "openssl: $(cat openssl.log)"
chmod 600 server.key

if [ "$BINARY" = --memcached ]; then
    echo alice:secret >users
    start_memcached tls -Z -Y "$PWD/users" -o "ssl_chain_cert=$PWD/server.pem,ssl_key=$PWD/server.key"
else
    echo secret | "$BINARY" passwd --file "$PWD/users" alice
    cat >tls.ini <<EOF
[server]
listen = "tls:127.0.0.1:0"
[data]
dir = "$work/tls.data"
[tls]
cert = "$PWD/server.pem"
key = "$PWD/server.key"
[access]
users = "$PWD/users"
EOF
    run_daemon tls
fi
export PORT

# What so many lines of reply are over TLS.
ask() { # OPTION REPLIES LINE...
    local option=$1 replies=$2 line
    shift 2
    coproc client { exec openssl s_client -quiet -connect "$HOST:$PORT" "$option" -CAfile ours.pem \
        -verify_return_error -verify_hostname localhost 2>errors; }
    printf '%s\r\n' "$@" >&"${client[1]}"
    while [ "$replies" != 0 ] && IFS= read -r -t 20 line <&"${client[0]}"; do
        echo "${line%$'\r'}"
        replies=$((replies - 1))
    done
    kill "$client_PID"
    wait "$client_PID" || true
}
for version in -tls1_2 -tls1_3; do
    found=$(ask $version 5 'set auth 0 0 12' 'alice secret' 'set name 0 0 5' value 'get name')
    [ "$found" = $'STORED\nSTORED\nVALUE name 0 5\nvalue\nEND' ] || fail "$version: $found $(cat errors)"
    found=$(ask $version 1 'get name')
    [ "$found" = 'CLIENT_ERROR unauthenticated' ] || fail "$version without a login: $found"
    found=$(ask $version 1 'set auth 0 0 11' 'alice wrong')
    [ "$found" = 'CLIENT_ERROR authentication failure' ] || fail "$version, another password: $found"
done
echo ok openssl: TLS 1.2 and 1.3, logins right, wrong and left out

! openssl s_client -connect "$HOST:$PORT" -CAfile other.pem -verify_return_error </dev/null \
    >out 2>&1 || fail "a certificate of another authority: $(cat out)"
if [ "$BINARY" != --memcached ]; then
    ! openssl s_client -connect "$HOST:$PORT" -tls1_1 -cipher ALL:@SECLEVEL=0 -CAfile ours.pem \
        </dev/null >out 2>&1 || fail "TLS 1.1: $(cat out)"
fi
echo ok openssl: what cannot be trusted

AUTHORITY=$PWD/ours.pem /usr/bin/python3 "$here/use_tls.py"
