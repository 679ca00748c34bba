#!/bin/bash
# Compiles libmemcached.c and runs it.
set -eu
cc -Wall -o libmemcached "$1" -lmemcached
./libmemcached "$HOST" "$PORT" "$TYPED"
