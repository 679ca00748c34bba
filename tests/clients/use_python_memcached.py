"""python-memcached: pure Python, passes negative deltas through."""

import memcache
from steps import BODY, HOST, MEMBERS, PORT, TYPED, every_method, ok, raises, same, text

client = memcache.Client([f"{HOST}:{PORT}"], cache_cas=True, socket_timeout=10)
every_method(
    client,
    "add append cas decr delete delete_multi disconnect_all flush_all get get_multi get_slab_stats "
    "get_slabs get_stats gets incr prepend replace set set_multi touch",
    local="MemcachedKeyCharacterError MemcachedKeyError MemcachedKeyLengthError MemcachedKeyNoneError "
    "MemcachedKeyTypeError MemcachedStringEncodingError check_key debuglog forget_dead_hosts "
    "reset_cas set_servers",
)


def cas(key, value):
    client.gets(key)
    same("cas", bool(client.cas(key, value)), True)
    same("cas with an old unique", bool(client.cas(key, value)), False)
    client.reset_cas()
    same("get after cas", text(client.get(key)), text(value))


same("set", client.set("pc:1", "value"), True)
same("get", client.get("pc:1"), "value")
same("add", bool(client.add("pc:1", "x")), False)
same("replace", bool(client.replace("pc:1", "v2")), True)
same("append", bool(client.append("pc:1", "!")), True)
same("prepend", bool(client.prepend("pc:1", "a ")), True)
same("get", client.get("pc:1"), "a v2!")
cas("pc:1", "v3")
same("touch", bool(client.touch("pc:1", 1000)), True)
same("delete", bool(client.delete("pc:1")), True)
same("get", client.get("pc:1"), None)
client.set("pc:n", 5)
same("incr", client.incr("pc:n", 3), 8)
same("decr", client.decr("pc:n", 2), 6)
values = {f"pc:{n}": f"value {n}" for n in range(500)}
same("set_multi", client.set_multi(values), [])
same("get_multi", client.get_multi(list(values)), values)
same("delete_multi", client.delete_multi(list(values)[1:]), 1)
same("what it left", client.get_multi(list(values)), {"pc:0": "value 0"})
ok("named keys: everything")
((_, stats),) = client.get_stats()
same("stats", stats["pointer_size"], "64")
((_, slabs),) = client.get_stats("slabs")
same("stats slabs", int(slabs["active_slabs"]) > 0, True)
((_, items),) = client.get_stats("items")
same("stats items", all(name.startswith("items:") for name in items) and len(items) > 0, True)
# These two split bytes by text, which Python 3 refuses, whatever the server says.
for broken in client.get_slabs, client.get_slab_stats:
    raises(broken.__name__, TypeError, broken)
    client.disconnect_all()
same("set after stats", client.set("pc:1", "value"), True)
client.disconnect_all()
same("get after disconnect_all", client.get("pc:1"), "value")
ok("stats, items, slabs, disconnect_all")

if TYPED:
    client.delete("2.400")
    same("incr of a missing COUNTER", client.incr("2.400", 5), 5)
    same("a negative delta", client.incr("2.400", -2), 3)
    same("a negative decr", client.decr("2.400", -4), 7)
    same("set", client.set("2.401", 41), True)
    same("a number comes back as one", client.get("2.401"), 41)
    cas("2.401", 7)
    same("x in a COUNTER", bool(client.set("2.401", "x")), False)
    same("the old value", client.get("2.401"), 7)
    ok("COUNTER: incr decr set get cas, negative deltas")

    same("set of an INDEX", client.set("1.400", BODY), True)
    same("fan-out", client.incr("1.400", 5), MEMBERS)
    same("fan-out with a negative delta", client.incr("1.400", -2), MEMBERS)
    counters = client.get_multi([f"2.{600000 + n}" for n in range(MEMBERS)])
    same("all counters are equal", len({text(value) for value in counters.values()}), 1)
    same("how many", len(counters), MEMBERS)
    same("append", bool(client.append("1.400", "5 6")), True)
    same("prepend", bool(client.prepend("1.400", BODY)), True)
    same("members", text(client.get("1.400")), "5 6")
    cas("1.400", "7 8")
    ok(f"INDEX: fan-out to {MEMBERS:,} counters, negative too, append, prepend, cas")

    client.set("3.400", "data")
    keys = ["2.401", "1.400", "3.400", "3.499"]
    found = {key: text(value) for key, value in client.get_multi(keys).items()}
    same("get_multi", found, {"2.401": "7", "1.400": "7 8", "3.400": "data"})
    for key in keys[:3]:
        same("touch", bool(client.touch(key, 1000)), True)
        same("delete", bool(client.delete(key)), True)
        same("get", client.get(key), None)
    ok("get_multi touch delete over COUNTER, INDEX, DATA")

    client.set_multi({"2.410": 5, "1.410": "7", "3.410": "data"})
    same("delete_multi", client.delete_multi(["2.410", "1.410", "3.410", "3.499"]), 1)
    same("get_multi", client.get_multi(["2.410", "1.410", "3.410"]), {})
    ok("delete_multi over COUNTER, INDEX, DATA")

client.flush_all()
same("get after flush_all", client.get("pc:1"), None)
same("in step", client.set("pc:1", "new") and client.get("pc:1"), "new")
ok("flush_all")
