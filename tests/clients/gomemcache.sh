#!/bin/bash
# Compiles gomemcache.go with Debian's gomemcache and runs it.
set -eu
export GOPATH=/usr/share/gocode GO111MODULE=off GOFLAGS= GOCACHE=$PWD/cache
go build -o client "$1"
./client
