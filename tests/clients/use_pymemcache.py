"""pymemcache: pure Python, noreply by default, passes negative deltas through.

With the argument `shutdown` it stops the server, which is then one of its own.
"""

import sys

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheUnknownCommandError
from steps import BODY, HOST, MEMBERS, PORT, TYPED, every_method, ok, raises, same

client = Client((HOST, PORT), default_noreply=False, timeout=10)

if sys.argv[1:] == ["shutdown"]:
    same("set", client.set("pm:1", b"value"), True)
    same("shutdown", client.shutdown(graceful=True), None)
    sys.exit()

every_method(
    client,
    "add append cache_memlimit cas close decr delete delete_many delete_multi flush_all get get_many "
    "get_multi gets gets_many incr prepend quit replace set set_many set_multi shutdown stats touch "
    "version disconnect_all",
    local="check_key",
)


def cas(key, value):
    _, unique = client.gets(key)
    same("cas", client.cas(key, value, unique), True)
    same("cas with an old unique", client.cas(key, value, unique), False)
    same("get after cas", client.get(key), value)
    same("cas of what is not there", client.cas(key + "9999", value, unique), None)


same("set", client.set("pm:1", b"value", flags=7), True)
same("get", client.get("pm:1"), b"value")
same("add", client.add("pm:1", b"x"), False)
same("replace", client.replace("pm:1", b"v2"), True)
same("append", client.append("pm:1", b"!"), True)
same("prepend", client.prepend("pm:1", b"a "), True)
same("get", client.get("pm:1"), b"a v2!")
cas("pm:1", b"v3")
same("touch", client.touch("pm:1", 1000), True)
same("delete", client.delete("pm:1"), True)
same("delete", client.delete("pm:1"), False)
same("incr of what is not there", client.incr("pm:n", 1), None)
client.set("pm:n", b"5")
same("incr", client.incr("pm:n", 3), 8)
same("decr", client.decr("pm:n", 2), 6)
raises("a negative delta", MemcacheClientError, lambda: client.incr("pm:n", -1))
values = {f"pm:{n}": b"%d" % n for n in range(500)}
same("set_many", client.set_many(values), [])
same("get_many", client.get_many(list(values)), values)
same("gets_many", len(client.gets_many(list(values))), 500)
same("set_multi", client.set_multi({"pm:a": b"1", "pm:b": b"2"}, noreply=False), [])
same("get_multi", client.get_multi(["pm:a", "pm:b"]), {"pm:a": b"1", "pm:b": b"2"})
same("delete_many", client.delete_many(list(values)[1:]), True)
same("what it left", client.get_many(list(values)), {"pm:0": b"0"})
same("delete_multi", client.delete_multi(["pm:a", "pm:0"], noreply=True), True)
same("what it left", client.get_many(["pm:a", "pm:b", "pm:0"]), {"pm:b": b"2"})
same("version", client.version()[:2], b"1.")
ok("named keys: everything")

quiet = Client((HOST, PORT), timeout=10)
for n in range(500):
    quiet.set("pm:quiet", b"%d" % n)
    quiet.incr("pm:quiet", 1, noreply=True)
    quiet.delete("pm:nothing")
same("get after 1,500 commands without a reply", quiet.get("pm:quiet"), b"500")
ok("noreply, the default")
stats = client.stats()
same("stats", stats[b"pointer_size"], 64)
same("stats settings", b"maxconns" in client.stats("settings"), True)
ok("stats")
limit = client.stats("settings")[b"maxbytes"]
same("cache_memlimit", client.cache_memlimit(512), True)
same("what it set", int(client.stats("settings")[b"maxbytes"]), 512 << 20)
same("cache_memlimit", client.cache_memlimit(int(limit) >> 20), True)
client.quit()
same("get after quit, on another connection", client.get("pm:b"), b"2")
client.disconnect_all()
same("get after disconnect_all", client.get("pm:b"), b"2")
ok("cache_memlimit quit disconnect_all")

if TYPED:
    client.delete("2.300")
    same("incr of a missing COUNTER", client.incr("2.300", 5), 5)
    same("a negative delta", client.incr("2.300", -2), 3)
    same("a negative decr", client.decr("2.300", -4), 7)
    same("not below 0", client.decr("2.300", 100), 0)
    same("set", client.set("2.301", 41), True)
    same("get", client.get("2.301"), b"41")
    cas("2.301", b"7")
    raises("x in a COUNTER", MemcacheClientError, lambda: client.set("2.301", b"x"))
    raises("append to a COUNTER", MemcacheClientError, lambda: client.append("2.301", b"1"))
    raises("an unknown type", MemcacheClientError, lambda: client.get("9.1"))
    same("the old value", client.get("2.301"), b"7")
    client.set("6.300", 1 << 63)
    same("a COUNTER64", client.incr("6.300", (1 << 63) - 1), (1 << 64) - 1)
    ok("COUNTER: incr decr set get cas, negative deltas")

    same("set of an INDEX", client.set("1.300", BODY), True)
    same("fan-out", client.incr("1.300", 5), MEMBERS)
    same("fan-out with a negative delta", client.incr("1.300", -2), MEMBERS)
    counters = client.get_many([f"2.{600000 + n}" for n in range(MEMBERS)])
    same("all counters are equal", len(set(counters.values())), 1)
    same("how many", len(counters), MEMBERS)
    same("append", client.append("1.300", b"5 6"), True)
    same("append creates", client.append("1.399", b"5 6"), True)
    same("prepend", client.prepend("1.300", BODY.encode()), True)
    same("prepend of what is not there", client.prepend("1.300", b"77"), False)
    same("members", client.get("1.300"), b"5 6")
    cas("1.300", b"7 8")
    same("fan-out of what is not there", client.incr("1.398", 1), None)
    ok(f"INDEX: fan-out to {MEMBERS:,} counters, negative too, append, prepend, cas")

    client.set("3.300", b"data")
    raises("incr of DATA", MemcacheClientError, lambda: client.incr("3.300", 1))
    keys = ["2.301", "1.300", "3.300", "3.399"]
    same("get_many", client.get_many(keys), {"2.301": b"7", "1.300": b"7 8", "3.300": b"data"})
    for key in keys[:3]:
        same("touch", client.touch(key, 1000), True)
        same("delete", client.delete(key), True)
        same("get", client.get(key), None)
    ok("get_many touch delete over COUNTER, INDEX, DATA")

    for n in range(500):
        quiet.set("2.302", b"x")
        quiet.set("2.302", n)
    same("errors under noreply give no line", quiet.get("2.302"), b"499")
    ok("noreply with errors")

same("flush_all in an hour", client.flush_all(delay=3600), True)
same("get", client.get("pm:b"), b"2")
same("flush_all", client.flush_all(), True)
same("get after flush_all", client.get("pm:b"), None)
client.set("pm:b", b"3")
same("flush_all without a reply", client.flush_all(noreply=True), True)
same("get after it", client.get("pm:b"), None)
ok("flush_all, with a delay and without a reply")
