#!/bin/bash
# What watches memcached in production reads our figures: collectd, munin, Nagios.
set -eu
fail() {
    echo "not ok $*"
    exit 1
}

# One item, read once, so that no figure is 0 by chance.
printf value >watched
memccp --servers="$SERVER" --set watched
[ "$(memccat --servers="$SERVER" watched)" = value ] || fail "memccat"

cat >collectd.conf <<EOF
BaseDir "$PWD"
TypesDB "/usr/share/collectd/types.db"
Hostname "here"
FQDNLookup false
Interval 1
LoadPlugin logfile
<Plugin logfile>
  File "$PWD/collectd.log"
</Plugin>
LoadPlugin csv
<Plugin csv>
  DataDir "$PWD/csv"
  StoreRates false
</Plugin>
LoadPlugin memcached
<Plugin memcached>
  <Instance "main">
    Address "$HOST"
    Port "$PORT"
  </Instance>
</Plugin>
EOF
/usr/sbin/collectd -f -C collectd.conf -P "$PWD/collectd.pid" &
collectd=$!
trap 'kill $collectd 2>/dev/null || true' EXIT
# It writes when it pleases: asked for ten seconds.
for figure in command-get command-set items-current; do
    value=
    for _ in $(seq 200); do
        value=$(sed -n '$s/.*,//p' csv/here/memcached-main/memcached_$figure-* 2>/dev/null) || true
        [ -n "$value" ] && break
        sleep 0.05
    done
    [ "${value%.*}" -ge 1 ] || fail "collectd: memcached_$figure is '$value': $(cat collectd.log)"
done
kill $collectd
wait $collectd || fail "collectd: $(cat collectd.log)"
! grep -iE 'error|fail|unable|not parse' collectd.log || fail "collectd"
echo ok collectd

for graph in rates bytes counters; do
    ln -s /usr/share/munin/plugins/memcached_ memcached_$graph
    host=$HOST port=$PORT MUNIN_LIBDIR=/usr/share/munin perl ./memcached_$graph >$graph ||
        fail "munin memcached_$graph"
    grep -q '\.value' $graph || fail "munin memcached_$graph: $(cat $graph)"
    ! grep -vE '^[a-z_]+\.value [0-9]+$' $graph || fail "munin memcached_$graph"
done
grep -qE 'cache_hits.value [1-9]' rates || fail "munin: no hits"
echo ok munin: rates bytes counters

/usr/lib/nagios/plugins/check_memcached -H "$SERVER" >nagios || fail "check_memcached: $(cat nagios)"
grep -q '^OK' nagios || fail "check_memcached: $(cat nagios)"
echo ok check_memcached of Nagios
