"""pylibmc, over libmemcached."""

import pylibmc
from steps import BODY, HOST, MEMBERS, PORT, TYPED, every_method, ok, raises, same, text

client = pylibmc.Client([f"{HOST}:{PORT}"], behaviors={"cas": True, "tcp_nodelay": True})
every_method(
    client,
    "add add_multi append cas decr delete delete_multi disconnect_all flush_all get get_multi "
    "get_stats gets incr incr_multi prepend replace set set_multi touch clone",
    local="deserialize serialize hash get_behaviors set_behaviors",
)


def cas(key, value):
    _, unique = client.gets(key)
    same("cas", client.cas(key, value, unique), True)
    same("cas with an old unique", client.cas(key, value, unique), False)
    same("get after cas", text(client.get(key)), text(value))


same("set", client.set("py:1", "value"), True)
same("get", client.get("py:1"), "value")
same("add", client.add("py:1", "x"), False)
same("replace", client.replace("py:1", "v2"), True)
cas("py:1", "v3")
same("touch", client.touch("py:1", 1000), True)
same("delete", client.delete("py:1"), True)
same("get", client.get("py:1"), None)
client.set("py:n", 5)
same("incr", client.incr("py:n", 3), 8)
same("decr", client.decr("py:n", 2), 6)
same("get of a number", client.get("py:n"), 6)
same("set_multi", client.set_multi({f"py:{n}": n for n in range(500)}), [])
same("get_multi", client.get_multi([f"py:{n}" for n in range(500)]), {f"py:{n}": n for n in range(500)})
client.set("py:list", [1, {"a": 2}])
same("a pickled value", client.get("py:list"), [1, {"a": 2}])
client.set("py:text", "middle")
same("append", client.append("py:text", "!"), True)
same("prepend", client.prepend("py:text", "the "), True)
same("get", client.get("py:text"), "the middle!")
same("append to what is not there", client.append("py:none", "!"), False)
same("prepend to what is not there", client.prepend("py:none", "!"), False)
same("add_multi", client.add_multi({"py:new": 1, "py:7": 2}), ["py:7"])
same("get_multi", client.get_multi(["py:new", "py:7"]), {"py:new": 1, "py:7": 7})
same("incr_multi", client.incr_multi(["py:new", "py:7"], delta=3), None)
same("get_multi", client.get_multi(["py:new", "py:7"]), {"py:new": 4, "py:7": 10})
raises("incr_multi of what is not there", pylibmc.NotFound, lambda: client.incr_multi(["py:none"]))
same("delete_multi", client.delete_multi([f"py:{n}" for n in range(100)]), True)
same("some were not there", client.delete_multi(["py:99", "py:100"]), False)
same("what they left", len(client.get_multi([f"py:{n}" for n in range(500)])), 399)
ok("named keys: set get add replace append prepend cas touch delete incr decr, each _multi")
((_, stats),) = client.get_stats()
same("get_stats", (stats["pointer_size"], int(stats["curr_items"]) > 0), (b"64", True))
# It knows the general names only, and gives those for every topic.
same("get_stats items", client.get_stats("items")[0][1].keys(), stats.keys())
other = client.clone()
same("a clone", other.get("py:new"), 4)
other.disconnect_all()
same("the other one goes on", client.get("py:new"), 4)
ok("get_stats clone disconnect_all")

if TYPED:
    client.delete("2.200")
    same("incr of a missing COUNTER", client.incr("2.200", 5), 5)
    same("decr", client.decr("2.200", 2), 3)
    same("set of a number", client.set("2.201", 41), True)
    same("a number comes back as one", client.get("2.201"), 41)
    same("incr", client.incr("2.201"), 42)
    cas("2.201", 7)
    raises("x in a COUNTER", pylibmc.Error, lambda: client.set("2.201", b"x"))
    same("the old value", client.get("2.201"), 7)
    ok("COUNTER: incr decr set get cas")

    same("set of an INDEX", client.set("1.200", BODY), True)
    same("fan-out", client.incr("1.200", 3), MEMBERS)
    counters = client.get_multi([f"2.{600000 + n}" for n in range(MEMBERS)])
    same("all counters", {text(value) for value in counters.values()}, {"3"})
    same("how many", len(counters), MEMBERS)
    same("append", client.append("1.200", b"5 6"), True)
    same("fan-out down", client.decr("1.200", 1), MEMBERS + 1)
    same("prepend", client.prepend("1.200", BODY.encode()), True)
    same("members", text(client.get("1.200")), "5 6")
    cas("1.200", b"7 8")
    ok(f"INDEX: fan-out to {MEMBERS:,} counters, append, prepend, cas")

    client.set("3.200", b"data")
    keys = ["2.201", "1.200", "3.200", "3.299"]
    found = {key: text(value) for key, value in client.get_multi(keys).items()}
    same("get_multi", found, {"2.201": "7", "1.200": "7 8", "3.200": "data"})
    for key in keys[:3]:
        same("touch", client.touch(key, 1000), True)
        same("delete", client.delete(key), True)
        same("get", client.get(key), None)
    ok("get_multi touch delete over COUNTER, INDEX, DATA")

    added = client.add_multi({"2.210": 5, "2.211": 6, "1.210": "7", "3.210": "data"})
    same("add_multi", added, [])
    same("add_multi again", sorted(client.add_multi({"2.210": 1, "1.210": "1"})), ["1.210", "2.210"])
    same("incr_multi", client.incr_multi(["2.210", "2.211", "2.212"], delta=4), None)
    counters = client.get_multi(["2.210", "2.211", "2.212"])
    same("incr_multi makes a missing COUNTER", [text(it) for it in counters.values()], ["9", "10", "4"])
    same("delete_multi", client.delete_multi(["2.210", "2.211", "2.212", "1.210", "3.210"]), True)
    same("get_multi", client.get_multi(["2.210", "1.210", "3.210"]), {})
    ok("add_multi incr_multi delete_multi over COUNTER, INDEX, DATA")

same("flush_all", client.flush_all(), True)
same("get after flush_all", client.get("py:new"), None)
ok("flush_all")
