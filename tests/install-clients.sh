#!/bin/bash
# Installs the memcached clients that the tests use, from Debian's packages, what compiles and
# runs them, and what watches the daemon (systemd-analyze, strace, faketime). Needs root or sudo; does
# nothing when all of them are there.
set -euo pipefail
packages=(memcached libmemcached-tools libmemcached-dev gcc g++ libc6-dev python3
    python3-pylibmc python3-pymemcache python3-memcache perl libcache-memcached-perl systemd strace
    faketime)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0
become=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install-clients.sh: root or sudo is needed to install ${missing[*]}" >&2
        exit 1
    fi
    become=(sudo)
fi
echo "installing ${missing[*]}"
"${become[@]}" apt-get update -q
# The packaged memcached would start as a service; the tests start their own.
"${become[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -q -y --no-install-recommends "${missing[@]}"
