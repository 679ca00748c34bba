"""Reads the figures by the rules of Prometheus' memcached_exporter, which is not in Debian 12.

It asks for `stats`, `stats slabs` and `stats items`, and on another connection for `stats settings`.
`memcached_up` becomes 0 by what it cannot parse: a class that is no number, a line of settings of other
than three words or four, a figure that is no number (rusage: not two numbers with one dot between), a
line longer than 4096 bytes, no `cmd_set` or none of the figures of `cas` that it takes from it. What is
there twice fails the whole scrape. Other names it leaves out when they are missing; here each name that
it exports must be there, and every line must have three words, too.
"""

import re
import socket

from steps import HOST, PORT, TYPED, ok, same

OPERATIONS = ("get", "delete", "incr", "decr", "cas", "touch")
GENERAL = [f"{name}_{end}" for name in OPERATIONS for end in ("hits", "misses")] + [
    "uptime", "time", "cas_badval", "cmd_flush", "cmd_set", "bytes", "limit_maxbytes", "curr_items",
    "total_items", "bytes_read", "bytes_written", "curr_connections", "total_connections",
    "rejected_connections", "conn_yields", "listen_disabled_num", "evictions", "reclaimed",
    "lru_crawler_starts", "direct_reclaims", "crawler_items_checked", "crawler_reclaimed",
    "moves_to_cold", "moves_to_warm", "moves_within_lru", "accepting_conns", "store_too_large",
    "store_no_memory",
]  # fmt: skip
ITEMS = [
    "number", "age", "hits_to_hot", "hits_to_warm", "hits_to_cold", "hits_to_temp", "evicted",
    "evicted_nonzero", "evicted_time", "outofmemory", "tailrepairs", "reclaimed",
    "expired_unfetched", "evicted_unfetched", "crawler_reclaimed", "number_hot", "number_warm",
    "number_cold", "age_hot", "age_warm", "mem_requested", "moves_to_cold", "moves_to_warm",
    "moves_within_lru",
]  # fmt: skip
SLABS = [f"{name}_hits" for name in OPERATIONS] + [
    "cas_badval", "cmd_set", "chunk_size", "chunks_per_page", "total_pages", "total_chunks",
    "used_chunks", "free_chunks", "free_chunks_end",
]  # fmt: skip
# They may fall; whatever else is exported may only grow.
GAUGES = {
    "time", "bytes", "limit_maxbytes", "curr_items", "curr_connections", "accepting_conns", "number",
    "age", "number_hot", "number_warm", "number_cold", "age_hot", "age_warm", "mem_requested",
    "chunk_size", "chunks_per_page", "total_pages", "total_chunks", "used_chunks", "free_chunks",
    "free_chunks_end",
}  # fmt: skip
LINE_MAX = 4096

connection = socket.create_connection((HOST, PORT), 10)
replies = connection.makefile("rb")


def stats(topic=""):
    """The lines of a topic, each `STAT NAME VALUE`."""
    connection.sendall(f"stats {topic}".strip().encode() + b"\r\n")
    found = {}
    for line in replies:
        if line == b"END\r\n":
            return found
        same("the length of a line", len(line) <= LINE_MAX, True)
        parts = re.fullmatch(r"STAT (\S+) (\S+)\r\n", line.decode())
        same("a line of stats " + topic, parts is not None or line, True)
        same("a name that is there once", parts[1] not in found, True)
        found[parts[1]] = parts[2]
    raise EOFError(topic)


def numbers(what, found, names):
    for name in names:
        same(f"{what} has {name}", name in found, True)
        is_number = re.fullmatch(r"-?\d+(\.\d+)?", found[name], re.ASCII)
        same(f"{what}: {name} is a number", is_number is not None or found[name], True)


def plain_sets(what, found, names):
    """Both count a cas as a set, too: the exporter shows the difference."""
    sets = int(found["cmd_set"]) - sum(int(found[name]) for name in names)
    same(f"{what}: sets that are no cas", sets >= 0 or sets, True)
    return sets


def classes(topic, pattern):
    found = {}
    for name, value in stats(topic).items():
        parts = re.fullmatch(pattern, name)
        if parts:
            found.setdefault(int(parts[1]), {})[parts[2]] = value
        else:
            same(f"a name of stats {topic} without a class", ":" not in name or name, True)
    return found


def counters():
    """What is exported as a counter, by topic, class and name."""
    found = {("stats", 0, name): value for name, value in stats().items() if name in GENERAL}
    for topic, pattern, names in ("items", ITEM, ITEMS), ("slabs", SLAB, SLABS):
        for number, figures in classes(topic, pattern).items():
            found.update({(topic, number, name): figures[name] for name in names})
    return {which: int(value) for which, value in found.items() if which[2] not in GAUGES}


ITEM = r"items:(\d+):(\w+)"
SLAB = r"(\d+):(\w+)"
general = stats()
same("a version", re.fullmatch(r"1\.\d+\.\d+\S*", general["version"]) is not None, True)
same("a general name with a colon", [name for name in general if ":" in name], [])
numbers("stats", general, GENERAL)
for name in "rusage_user", "rusage_system":
    same(name, re.fullmatch(r"\d+\.\d{6}", general[name]) is not None or general[name], True)
same("limit_maxbytes > bytes", int(general["limit_maxbytes"]) > int(general["bytes"]), True)
settings = stats("settings")
numbers("stats settings", settings, ["maxconns"])
if settings.get("lru_crawler") == "yes":
    numbers("stats settings", settings, [
        "lru_crawler_sleep", "lru_crawler_tocrawl", "hot_lru_pct", "warm_lru_pct",
        "hot_max_factor", "warm_max_factor",
    ])  # fmt: skip
    same("lru_maintainer_thread", settings["lru_maintainer_thread"] in ("yes", "no"), True)
ok("memcached_exporter: stats and settings can be parsed")

def put(key):
    connection.sendall(b"set %s 0 0 1\r\n5\r\n" % key)
    same("set", replies.readline(), b"STORED\r\n")


put(b"exporter")
items = classes("items", ITEM)
slabs = classes("slabs", SLAB)
numbers("stats slabs", stats("slabs"), ["total_malloced", "active_slabs"])
for number, figures in items.items():
    numbers(f"stats items, class {number}", figures, ITEMS)
for number, figures in slabs.items():
    numbers(f"stats slabs, class {number}", figures, SLABS)
same("there are classes", bool(items) and bool(slabs), True)
same("every class of items is one of slabs", set(items) - set(slabs), set())
total = sum(int(figures["number"]) for figures in items.values())
same("the items of all classes", total, int(stats()["curr_items"]))
if TYPED:
    # A type number is the number of its class.
    for key, number in (b"1.2000", 1), (b"2.2000", 2), (b"3.2000", 3):
        put(key)
        found = classes("items", ITEM)
        same(f"type {number} is a class", int(found[number]["number"]) >= 1, True)
ok("memcached_exporter: items and slabs can be parsed, class by class")


def ask(request, expected):
    connection.sendall(request + b"\r\n")
    same(request, replies.readline(), expected + b"\r\n")


before = counters()
plain = plain_sets("stats", stats(), ["cas_misses", "cas_hits", "cas_badval"])
for key in (b"exporter", b"2.2000") if TYPED else (b"exporter",):
    put(key)
    connection.sendall(b"gets %s\r\n" % key)
    unique = replies.readline().split()[-1]
    replies.readline(), replies.readline()
    ask(b"cas %s 0 0 1 %s\r\n7" % (key, unique), b"STORED")
    ask(b"cas %s 0 0 1 %s\r\n7" % (key, unique), b"EXISTS")
    ask(b"cas %s9999 0 0 1 %s\r\n7" % (key, unique), b"NOT_FOUND")
    ask(b"incr %s 1" % key, b"8")
    ask(b"decr %s 1" % key, b"7")
    ask(b"touch %s 0" % key, b"TOUCHED")
    ask(b"delete %s" % key, b"DELETED")
    plain += 1
same("plain sets", plain_sets("stats", stats(), ["cas_misses", "cas_hits", "cas_badval"]), plain)
for number, figures in classes("slabs", SLAB).items():
    plain_sets(f"class {number}", figures, ["cas_hits", "cas_badval"])
after = counters()
fallen = [which for which in before if which in after and after[which] < before[which]]
same("counters that fell", fallen, [])
for name in [f"{name}_hits" for name in OPERATIONS] + ["cas_misses", "cas_badval", "cmd_set"]:
    which = ("stats", 0, name)
    same(f"{name} counts", after[which] > before[which], True)
ok("memcached_exporter: counters grow, and sets are told from cas")
