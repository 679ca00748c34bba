"""python-memcached: pure Python, passes negative deltas through."""

import memcache
from steps import BODY, HOST, MEMBERS, PORT, TYPED, ok, same, text

client = memcache.Client([f"{HOST}:{PORT}"], cache_cas=True, socket_timeout=10)


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
ok("named keys: everything")
same("stats", len(client.get_stats()), 1)
same("stats slabs", len(client.get_stats("slabs")), 1)
same("stats items", len(client.get_stats("items")), 1)
same("set after stats", client.set("pc:1", "value"), True)
ok("stats, items, slabs")

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
