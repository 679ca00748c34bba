#!/bin/sh
# Holds the systemd unit against `systemd-analyze` (Debian: package systemd): it must verify
# cleanly and its exposure must be 1.5 at most. Run it from anywhere; without systemd-analyze it
# says so and exits with 77.
set -eu

unit=$(dirname "$0")/../packaging/storage_server.service
program=/usr/bin/storage_server
exposure_max=15 # tenths

if ! command -v systemd-analyze >/dev/null; then
    echo "packaging: skipped, there is no systemd-analyze" >&2
    exit 77
fi

systemd-analyze security --no-pager --offline=true --threshold="$exposure_max" "$unit" |
    tail -n 1
# The exit code of the pipe is that of tail, so the verdict is asked for again, silently.
systemd-analyze security --no-pager --offline=true --threshold="$exposure_max" "$unit" \
    >/dev/null

# The program need not be installed here: verify a copy of the unit that starts another one.
copy=$(mktemp -d)
trap 'rm -r "$copy"' EXIT
sed "s|^ExecStart=$program |ExecStart=/bin/true |" "$unit" >"$copy/storage_server.service"
if cmp -s "$unit" "$copy/storage_server.service"; then
    echo "packaging: ExecStart does not start $program" >&2
    exit 1
fi
complaints=$(systemd-analyze verify --man=no "$copy/storage_server.service" 2>&1) ||
    { echo "$complaints" >&2; exit 1; }
if [ -n "$complaints" ]; then
    echo "$complaints" >&2
    exit 1
fi
echo "packaging: the unit verifies"
