"""aiomcache: asyncio, pure Python; a pool of connections."""

import asyncio

from aiomcache import Client, ClientException
from steps import BODY, HOST, MEMBERS, PORT, TYPED, every_method, ok, same


async def refused(what, call):
    """Says so, and the connection is of use afterwards."""
    try:
        result = await call
    except ClientException:
        return
    same(what, result, "a ClientException")


async def cas(client, key, value):
    _, unique = await client.gets(key)
    same("cas", await client.cas(key, value, unique), True)
    same("cas with an old unique", await client.cas(key, value, unique), False)
    same("get after cas", await client.get(key), value)
    same("cas of what is not there", await client.cas(key + b"9999", value, unique), False)


async def named(client):
    same("set", await client.set(b"aio:1", b"value"), True)
    same("get", await client.get(b"aio:1"), b"value")
    same("get of what is not there", await client.get(b"aio:0", b"default"), b"default")
    same("add", await client.add(b"aio:1", b"x"), False)
    same("replace", await client.replace(b"aio:1", b"v2"), True)
    same("replace of what is not there", await client.replace(b"aio:0", b"x"), False)
    same("append", await client.append(b"aio:1", b"!"), True)
    same("prepend", await client.prepend(b"aio:1", b"a "), True)
    same("get", await client.get(b"aio:1"), b"a v2!")
    await cas(client, b"aio:1", b"v3")
    same("touch", await client.touch(b"aio:1", 1000), True)
    same("touch of what is not there", await client.touch(b"aio:0", 1000), False)
    same("delete", await client.delete(b"aio:1"), True)
    same("delete", await client.delete(b"aio:1"), False)
    await client.set(b"aio:n", b"5", exptime=1000)
    same("incr", await client.incr(b"aio:n", 3), 8)
    same("decr", await client.decr(b"aio:n", 2), 6)
    await refused("incr of what is not there", client.incr(b"aio:0"))
    await client.set(b"aio:text", b"text")
    await refused("incr of text", client.incr(b"aio:text"))
    keys = [b"aio:%d" % n for n in range(300)]
    await asyncio.gather(*(client.set(key, b"value " + key) for key in keys))
    found = await client.multi_get(*keys)
    same("multi_get", found, tuple(b"value " + key for key in keys))
    same("version", (await client.version())[:2], b"1.")
    ok("named keys: get gets multi_get set cas add replace append prepend delete incr decr touch")
    same("stats", b"curr_items" in await client.stats(), True)
    same("stats settings", b"maxconns" in await client.stats(b"settings"), True)
    same("stats items", isinstance(await client.stats(b"items"), dict), True)
    ok("stats, settings, items")


async def typed(client):
    await client.delete(b"2.700")
    same("incr of a missing COUNTER", await client.incr(b"2.700", 5), 5)
    same("a negative delta", await client.incr(b"2.700", -2), 3)
    same("a negative decr", await client.decr(b"2.700", -4), 7)
    same("not below 0", await client.decr(b"2.700", 100), 0)
    same("set", await client.set(b"2.701", b"41"), True)
    await cas(client, b"2.701", b"7")
    await refused("x in a COUNTER", client.set(b"2.701", b"x"))
    await refused("append to a COUNTER", client.append(b"2.701", b"1"))
    same("the old value", await client.get(b"2.701"), b"7")
    ok("COUNTER: incr decr set get cas, negative deltas")

    same("set of an INDEX", await client.set(b"1.700", BODY.encode()), True)
    same("fan-out", await client.incr(b"1.700", 5), MEMBERS)
    same("fan-out with a negative delta", await client.incr(b"1.700", -2), MEMBERS)
    counters = await client.multi_get(*(b"2.%d" % (600000 + n) for n in range(MEMBERS)))
    same("how many", len(counters), MEMBERS)
    same("all counters are equal", len(set(counters)), 1)
    same("append", await client.append(b"1.700", b"5 6"), True)
    same("prepend", await client.prepend(b"1.700", BODY.encode()), True)
    same("prepend of what is not there", await client.prepend(b"1.700", b"77"), False)
    same("members", await client.get(b"1.700"), b"5 6")
    await cas(client, b"1.700", b"7 8")
    await refused("fan-out of what is not there", client.incr(b"1.798"))
    ok(f"INDEX: fan-out to {MEMBERS:,} counters, negative too, append, prepend, cas")

    await client.set(b"3.700", b"data")
    await refused("incr of DATA", client.incr(b"3.700"))
    keys = [b"2.701", b"1.700", b"3.700", b"3.799"]
    same("multi_get", await client.multi_get(*keys), (b"7", b"7 8", b"data", None))
    for key in keys[:3]:
        same("touch", await client.touch(key, 1000), True)
        same("delete", await client.delete(key), True)
        same("get", await client.get(key), None)
    ok("multi_get touch delete over COUNTER, INDEX, DATA")


async def main():
    client = Client(HOST, PORT, pool_size=8)
    every_method(
        client,
        "add append cas close decr delete flush_all get gets incr multi_get prepend replace set stats "
        "touch version",
    )
    await named(client)
    if TYPED:
        await typed(client)
    same("flush_all", await client.flush_all(), None)
    same("get after flush_all", await client.get(b"aio:1"), None)
    ok("flush_all")
    await client.close()


asyncio.run(main())
