#!/bin/bash
# Installs the memcached clients that the tests use, what compiles and runs them, and what watches
# the daemon (systemd-analyze, strace, faketime), and what the benches compare it with: from Debian's
# packages, which needs root or sudo, and from PyPI and npm into target/clients. Does nothing when
# all of them are there.
set -euo pipefail
cd "$(dirname "$0")/clients"

packages=(memcached libmemcached-tools libmemcached-dev gcc g++ libc6-dev
    python3 python3-venv python3-pylibmc python3-pymemcache python3-memcache
    perl libcache-memcached-perl libcache-memcached-fast-perl php-cli php-memcached
    golang-go golang-github-bradfitz-gomemcache-dev default-jdk-headless libspymemcached-java
    nutcracker collectd-core munin-plugins-extra monitoring-plugins-contrib openssl systemd strace
    faketime redis-server)
# Node often comes from elsewhere, and npm with it.
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing+=("$package")
done
if [ ${#missing[@]} != 0 ]; then
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
    # What is a service would start; the tests start their own.
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# What is there was made from these lists, by this Python: else it is made anew.
fetched=${CARGO_TARGET_DIR:-../../target}/clients
wanted=$(cat requirements.txt npm/package-lock.json <(/usr/bin/python3 --version) | sha256sum)
[ "$(cat "$fetched/made-from" 2>/dev/null)" = "$wanted" ] && exit 0
echo "fetching clients from PyPI and npm"
rm -rf "$fetched"
mkdir -p "$fetched"
/usr/bin/python3 -m venv "$fetched/python"
"$fetched/python/bin/pip" install -q --disable-pip-version-check --only-binary :all: --no-deps \
    -r requirements.txt
cp npm/package.json npm/package-lock.json "$fetched"
npm ci --prefix "$fetched" --ignore-scripts --no-audit --no-fund
echo "$wanted" >"$fetched/made-from"
