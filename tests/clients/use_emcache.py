"""emcache: asyncio, with a parser in C; every verb of the text protocol, with and without noreply."""

import asyncio

import emcache
from steps import BODY, HOST, MEMBERS, PORT, TYPED, every_method, ok, same

NODE = emcache.MemcachedHostAddress(HOST, PORT)


async def refused(what, error, call):
    try:
        result = await call
    except error:
        return
    same(what, result, error.__name__)


async def value(client, key):
    item = await client.get(key)
    return item and item.value


async def cas(client, key, new):
    unique = (await client.gets(key)).cas
    await client.cas(key, new, unique)
    await refused("cas with an old unique", emcache.StorageCommandError, client.cas(key, new, unique))
    same("get after cas", await value(client, key), new)


async def named(client):
    error = emcache.StorageCommandError
    await client.set(b"em:1", b"value", flags=7)
    item = await client.get(b"em:1", return_flags=True)
    same("get", (item.value, item.flags), (b"value", 7))
    await refused("add", error, client.add(b"em:1", b"x"))
    await client.replace(b"em:1", b"v2")
    await refused("replace of what is not there", error, client.replace(b"em:0", b"x"))
    await client.append(b"em:1", b"!")
    await client.prepend(b"em:1", b"a ")
    same("get", await value(client, b"em:1"), b"a v2!")
    await cas(client, b"em:1", b"v3")
    await client.touch(b"em:1", 1000)
    await refused("touch", emcache.NotFoundCommandError, client.touch(b"em:0", 1000))
    same("gat", (await client.gat(1000, b"em:1")).value, b"v3")
    same("gats", (await client.gats(1000, b"em:1")).cas > 0, True)
    same("gat of what is not there", await client.gat(1000, b"em:0"), None)
    await client.delete(b"em:1")
    await refused("delete", emcache.NotFoundCommandError, client.delete(b"em:1"))
    await client.set(b"em:n", b"5")
    same("increment", await client.increment(b"em:n", 3), 8)
    same("decrement", await client.decrement(b"em:n", 2), 6)
    await refused("increment", emcache.NotFoundCommandError, client.increment(b"em:0", 1))
    keys = [b"em:%d" % n for n in range(300)]
    for key in keys:
        await client.set(key, key, noreply=True)
    await client.increment(b"em:n", 1, noreply=True)
    await client.decrement(b"em:n", 4, noreply=True)
    for many in client.get_many, client.gets_many:
        found = await many(keys)
        same(many.__name__, {key: item.value for key, item in found.items()}, dict(zip(keys, keys)))
    for many in client.gat_many, client.gats_many:
        found = await many(1000, keys)
        same(many.__name__, {key: item.value for key, item in found.items()}, dict(zip(keys, keys)))
    same("the sum of what has no reply", await value(client, b"em:n"), b"3")
    ok("named keys: set get gets gat gats and many, add replace append prepend cas touch delete "
       "increment decrement, noreply")
    same("version", (await client.version(NODE))[:2], "1.")
    await client.verbosity(NODE, 1)
    same("stats", "curr_items" in await client.stats(NODE), True)
    same("stats settings", "maxconns" in await client.stats(NODE, "settings"), True)
    limit = int((await client.stats(NODE, "settings"))["maxbytes"]) >> 20
    await client.cache_memlimit(NODE, 512)
    same("what it set", int((await client.stats(NODE, "settings"))["maxbytes"]), 512 << 20)
    await client.cache_memlimit(NODE, limit, noreply=True)
    same("and again", int((await client.stats(NODE, "settings"))["maxbytes"]) >> 20, limit)
    ok("version verbosity stats cache_memlimit")


async def typed(client):
    await client.delete(b"2.800", noreply=True)
    same("increment of a missing COUNTER", await client.increment(b"2.800", 5), 5)
    same("decrement", await client.decrement(b"2.800", 100), 0)
    await client.set(b"2.801", b"41")
    same("a step of -1 in 32 bits", await client.increment(b"2.801", 4294967295), 40)
    await cas(client, b"2.801", b"7")
    await refused("x in a COUNTER", emcache.CommandError, client.set(b"2.801", b"x"))
    same("the old value", await value(client, b"2.801"), b"7")
    ok("COUNTER: increment decrement set get cas")

    await client.set(b"1.800", BODY.encode())
    same("fan-out", await client.increment(b"1.800", 5), MEMBERS)
    counters = await client.get_many([b"2.%d" % (600000 + n) for n in range(MEMBERS)])
    same("how many", len(counters), MEMBERS)
    same("all counters are equal", len({item.value for item in counters.values()}), 1)
    await client.append(b"1.800", b"5 6")
    await client.prepend(b"1.800", BODY.encode())
    same("members", await value(client, b"1.800"), b"5 6")
    await cas(client, b"1.800", b"7 8")
    ok(f"INDEX: fan-out to {MEMBERS:,} counters, append, prepend, cas")

    await client.set(b"3.800", b"data")
    keys = [b"2.801", b"1.800", b"3.800", b"3.899"]
    found = await client.gats_many(1000, keys)
    same("gats_many", {key: item.value for key, item in found.items()},
         dict(zip(keys, [b"7", b"7 8", b"data"])))
    for key in keys[:3]:
        await client.touch(key, 1000)
        await client.delete(key)
        same("get", await client.get(key), None)
    ok("gats_many touch delete over COUNTER, INDEX, DATA")


async def main():
    client = await emcache.create_client([NODE], timeout=10)
    every_method(
        client,
        "add append cache_memlimit cas close decrement delete flush_all gat gat_many gats gats_many get "
        "get_many gets gets_many increment prepend replace set stats touch verbosity version",
        local="cluster_managment",
    )
    await named(client)
    if TYPED:
        await typed(client)
    await client.flush_all(NODE, delay=3600)
    same("get after flush_all in an hour", await value(client, b"em:7"), b"em:7")
    await client.flush_all(NODE)
    same("get after flush_all", await client.get(b"em:7"), None)
    await client.set(b"em:7", b"new")
    await client.flush_all(NODE, noreply=True)
    same("get after flush_all without a reply", await client.get(b"em:7"), None)
    ok("flush_all, with a delay and without a reply")
    await client.close()


asyncio.run(main())
