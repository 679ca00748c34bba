#!/bin/bash
# memcapable (memccapable in Debian): libmemcached's conformance test of a server. 27 cases.
# What it expects depends on VERSION: only from 1.6 on it is what memcached 1.6 does.
set -u
memccapable -a -v -h "$HOST" -p "$PORT" >cases 2>errors
status=$?
sed -n 's/^\(ascii .*[a-z]\) *\[pass\].*/ok \1/p' cases
passed=$(grep -c '\[pass\]' cases)
if [ $status != 0 ] || [ "$passed" != 27 ]; then
    cat errors
    exit 1
fi
