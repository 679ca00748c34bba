"""meta-memcache: speaks the meta protocol only; leases, stale values, recaching, base64 keys."""

from meta_memcache import (
    CacheClient, LeasePolicy, RecachePolicy, ServerAddress, SetMode, StalePolicy,
    connection_pool_factory_builder,
)  # fmt: skip
from meta_memcache.errors import MemcacheError
from meta_memcache.protocol import Key, Miss, RequestFlags, Success, Value
from steps import HOST, PORT, TYPED, every_method, ok, raises, same, text

client = CacheClient.cache_client_from_servers(
    servers=[ServerAddress(HOST, PORT)],
    connection_pool_factory_fn=connection_pool_factory_builder(recv_timeout=10),
)
every_method(
    client,
    "cache_client_from_servers delete delta delta_and_get delta_initialize delta_initialize_and_get get "
    "get_cas get_cas_typed get_counters get_or_lease get_or_lease_cas get_typed invalidate "
    "meta_arithmetic meta_delete meta_get meta_multiget meta_set multi_get multi_get_cas refill set "
    "set_cas touch",
    local="cache_client_with_gutter_from_servers ephemeral_cache_client_from_servers",
)
LEASE = LeasePolicy(ttl=30, miss_retries=3, miss_retry_wait=0.001)


def cas(key, value):
    _, unique = client.get_cas(key)
    same("set with a cas token", client.set(key, value, 0, cas_token=unique), True)
    same("and an old one", client.set(key, value, 0, cas_token=unique), False)
    same("get after cas", text(client.get(key)), text(value))
    unique = client.set_cas(key, value, 0)
    same("set_cas gives the new token", client.get_cas(key)[1], unique)
    same("delete with an old token", client.delete(key, cas_token=unique + 1000), False)


same("set", client.set("mm:1", b"value", 1000), True)
same("get", client.get("mm:1"), b"value")
same("get of what is not there", client.get("mm:0"), None)
same("refill", client.refill("mm:1", b"x", 1000), False)
same("add", client.set("mm:1", b"x", 0, set_mode=SetMode.ADD), False)
same("replace", client.set("mm:1", b"v2", 0, set_mode=SetMode.REPLACE), True)
same("replace", client.set("mm:0", b"v2", 0, set_mode=SetMode.REPLACE), False)
same("append", client.set("mm:1", b"!", 0, set_mode=SetMode.APPEND), True)
same("prepend", client.set("mm:1", b"a ", 0, set_mode=SetMode.PREPEND), True)
same("append", client.set("mm:0", b"!", 0, set_mode=SetMode.APPEND), False)
same("get", client.get("mm:1"), b"a v2!")
cas("mm:1", b"v3")
same("touch", client.touch("mm:1", 1000), True)
same("touch", client.touch("mm:0", 1000), False)
same("get and touch", client.get("mm:1", touch_ttl=1000), b"v3")
same("delete", client.delete("mm:1"), True)
same("delete", client.delete("mm:1"), False)
same("invalidate", client.invalidate("mm:1"), True)
same("a long key", client.set("mm:" + "k" * 400, b"v", 0), True)
same("a long key", client.get("mm:" + "k" * 400), b"v")
same("a key in base64", client.set("mm:schlüssel mit leer", b"v", 0), True)
same("a key in base64", client.get("mm:schlüssel mit leer"), b"v")
same("a pickled value", client.set("mm:list", [1, {"a": 2}], 0), True)
same("a pickled value", client.get("mm:list"), [1, {"a": 2}])
same("a typed get", client.get_typed("mm:list", list), [1, {"a": 2}])
same("a compressed value", client.set("mm:large", b"x" * 500_000, 0), True)
same("a compressed value", client.get("mm:large"), b"x" * 500_000)
ok("named keys: set get refill touch delete invalidate, modes, cas, long and base64 keys")

client.delete("mm:n")
same("delta of what is not there", client.delta("mm:n", 1), False)
same("and its value", client.delta_and_get("mm:n", 1), None)
same("delta_initialize_and_get", client.delta_initialize_and_get("mm:n", 3, 5, 1000), 5)
same("delta_initialize", client.delta_initialize("mm:n", 3, 5, 1000), True)
same("delta_and_get", client.delta_and_get("mm:n", 4), 12)
same("down", client.delta_and_get("mm:n", -2, refresh_ttl=1000), 10)
same("delta without a reply", client.delta("mm:n", 5, no_reply=True), True)
same("delta", client.delta("mm:n", -100), True)
same("not below 0", int(client.get("mm:n")), 0)
ok("delta, delta_and_get, delta_initialize")

keys = [f"mm:{n}" for n in range(500)]
for key in keys:
    client.set(key, key.encode(), 1000, no_reply=True)
found = client.multi_get(keys + ["mm:none"])
same("multi_get", {key.key: value for key, value in found.items()},
     {**{key: key.encode() for key in keys}, "mm:none": None})
found = client.multi_get_cas(keys)
same("multi_get_cas", len({unique for _, unique in found.values()}), 500)
same("delete without a reply", client.delete(keys[0], no_reply=True), True)
same("touch without a reply", client.touch(keys[1], 1000, no_reply=True), True)
same("in step", (client.get(keys[0]), client.get(keys[1])), (None, b"mm:1"))
ok("multi_get, multi_get_cas, 500 sets without a reply")

def meta(of):
    """What the others are made of: one request each."""
    key, other = Key(of), Key(of + "9999")
    client.invalidate(key)
    flags = RequestFlags(return_value=True, return_ttl=True, return_size=True)
    same("meta_get", isinstance(client.meta_get(key, flags), Miss), True)
    same("meta_set", isinstance(client.meta_set(key, b"5", RequestFlags(cache_ttl=100)), Success), True)
    found = client.meta_get(key, flags)
    same("meta_get", isinstance(found, Value), True)
    same("its value", text(found.value), "5")
    same("its flags", (found.flags.size, 95 <= found.flags.ttl <= 100), (1, True))
    step = RequestFlags(return_value=True, ma_delta_value=3)
    same("meta_arithmetic", int(client.meta_arithmetic(key, step).value), 8)
    found = client.meta_multiget([key, other], RequestFlags(return_value=True))
    same("meta_multiget", int(found[key].value), 8)
    same("meta_multiget", isinstance(found[other], Miss), True)
    same("meta_delete", isinstance(client.meta_delete(key), Success), True)
    same("meta_delete", isinstance(client.meta_delete(key), Miss), True)
    ok(f"meta_get meta_set meta_arithmetic meta_multiget meta_delete of {of}")


meta("mm:meta")
same("get_cas_typed", client.get_cas_typed("mm:large", bytes)[0], b"x" * 500_000)
same("get_counters", len(client.get_counters()), 1)
same("who asks first gets the lease", client.get_or_lease("mm:lease", LEASE), None)
waits = []
same("others wait", client.get_or_lease("mm:lease", LEASE, lease_wait_fn=waits.append), None)
same("they did", len(waits), 2)
_, unique = client.get_or_lease_cas("mm:lease2", LEASE)
same("the lease has a token", client.set("mm:lease2", b"made", 1000, cas_token=unique), True)
same("what the winner set", client.get_or_lease("mm:lease2", LEASE), b"made")
client.set("mm:stale", b"old", 1000)
stale = StalePolicy(mark_stale_on_deletion_ttl=100, mark_stale_on_cas_mismatch=True)
same("delete marks as stale", client.delete("mm:stale", stale_policy=stale), True)
same("one is told to renew", client.get("mm:stale"), None)
same("the others get the old value", client.get("mm:stale"), b"old")
client.set("mm:soon", b"v", 20)
policy = RecachePolicy(ttl=30)
same("one renews what ends soon", client.get("mm:soon", recache_policy=policy), None)
same("the others get it", client.get("mm:soon", recache_policy=policy), b"v")
ok("leases, stale values, recaching")

if TYPED:
    client.invalidate("2.1400")
    same("delta of a missing COUNTER", client.delta_and_get("2.1400", 5), 5)
    same("down", client.delta_and_get("2.1400", -100), 0)
    same("set", client.set("2.1401", b"41", 0), True)
    # The client drops a cas token of more than 32 bits, and those of counters have more.
    same("no cas token", client.get_cas("2.1401"), (b"41", None))
    same("set", client.set("2.1401", b"7", 0), True)
    raises("x in a COUNTER", MemcacheError, lambda: client.set("2.1401", b"x", 0))
    same("the old value", client.get("2.1401"), b"7")
    ok("COUNTER: delta set get")
    meta("2.1402")
