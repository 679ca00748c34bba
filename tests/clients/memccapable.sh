#!/bin/bash
# memcapable (memccapable in Debian): libmemcached's conformance test of a server. 27 cases.
# What it expects depends on VERSION, so it is told 1.6: that is what the daemon follows.
set -u
here=$(cd "$(dirname "$0")" && pwd)
/usr/bin/python3 "$here/as_memcached_1_6.py" "$HOST" "$PORT" >port &
relay=$!
trap 'kill $relay' EXIT
for _ in $(seq 100); do
    [ -s port ] && break
    sleep 0.05
done
memccapable -a -v -h "$HOST" -p "$(cat port)" >cases 2>errors
status=$?
sed -n 's/^\(ascii .*[a-z]\) *\[pass\].*/ok \1/p' cases
passed=$(grep -c '\[pass\]' cases)
if [ $status != 0 ] || [ "$passed" != 27 ]; then
    grep -av "\[pass\]" cases errors
    exit 1
fi
