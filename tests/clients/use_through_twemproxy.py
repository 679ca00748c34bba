"""What passes through twemproxy: it has no gat, no stats, no flush_all, no version and no meta commands."""

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError
from steps import BODY, HOST, MEMBERS, PORT, TYPED, ok, raises, same

client = Client((HOST, PORT), default_noreply=False, timeout=10)


def cas(key, value):
    _, unique = client.gets(key)
    same("cas", client.cas(key, value, unique), True)
    same("cas with an old unique", client.cas(key, value, unique), False)
    same("get after cas", client.get(key), value)
    same("cas of what is not there", client.cas(key + "9999", value, unique), None)


values = {f"tp:{n}": b"%d" % n for n in range(500)}
same("set_many", client.set_many(values), [])
same("get_many", client.get_many(list(values)), values)
same("gets_many", len(client.gets_many(list(values))), 500)
same("add", client.add("tp:1", b"x"), False)
same("replace", client.replace("tp:1", b"v2"), True)
same("append", client.append("tp:1", b"!"), True)
same("prepend", client.prepend("tp:1", b"a "), True)
same("get", client.get("tp:1"), b"a v2!")
cas("tp:1", b"v3")
same("touch", client.touch("tp:1", 1000), True)
same("touch of what is not there", client.touch("tp:none", 1000), False)
same("delete", client.delete("tp:1"), True)
same("delete", client.delete("tp:1"), False)
same("get", client.get("tp:1"), None)
same("incr", client.incr("tp:5", 3), 8)
same("decr", client.decr("tp:5", 2), 6)
same("incr of what is not there", client.incr("tp:none", 1), None)
raises("incr of text", MemcacheClientError, lambda: client.set("tp:t", b"t") and client.incr("tp:t", 1))
same("a large value", client.set("tp:large", b"x" * 500_000), True)
same("a large value", client.get("tp:large"), b"x" * 500_000)
ok("named keys: set get gets add replace append prepend cas touch delete incr decr, 500 keys at once")

quiet = Client((HOST, PORT), timeout=10)
for n in range(500):
    quiet.set("tp:quiet", b"%d" % n)
    quiet.incr("tp:quiet", 1, noreply=True)
same("get after 1,000 commands without a reply", quiet.get("tp:quiet"), b"500")
ok("noreply")

if TYPED:
    # The keys of an index and of its counters are on different servers: a fan-out counts what it
    # created on the server of the index.
    same("incr of a missing COUNTER", client.incr("2.300", 5), 5)
    same("decr", client.decr("2.300", 100), 0)
    same("set", client.set("2.301", 41), True)
    cas("2.301", b"7")
    raises("x in a COUNTER", MemcacheClientError, lambda: client.set("2.301", b"x"))
    same("the old value", client.get("2.301"), b"7")
    same("set of an INDEX", client.set("1.300", BODY), True)
    same("fan-out", client.incr("1.300", 5), MEMBERS)
    same("append", client.append("1.300", b"5 6"), True)
    same("prepend", client.prepend("1.300", BODY.encode()), True)
    same("prepend of what is not there", client.prepend("1.300", b"77"), False)
    cas("1.300", b"7 8")
    same("set", client.set("3.300", b"data"), True)
    raises("incr of DATA", MemcacheClientError, lambda: client.incr("3.300", 1))
    keys = ["2.301", "1.300", "3.300", "3.399"]
    same("get_many", client.get_many(keys), {"2.301": b"7", "1.300": b"7 8", "3.300": b"data"})
    for key in keys[:3]:
        same("touch", client.touch(key, 1000), True)
        same("delete", client.delete(key), True)
        same("get", client.get(key), None)
    ok("COUNTER, INDEX, DATA: set get cas incr decr append prepend touch delete, many at once")
