"""pylibmc, over libmemcached."""

import pylibmc
from steps import BODY, HOST, MEMBERS, PORT, TYPED, ok, raises, same, text

client = pylibmc.Client([f"{HOST}:{PORT}"], behaviors={"cas": True, "tcp_nodelay": True})


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
ok("named keys: set get add replace cas touch delete incr decr set_multi get_multi")

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
