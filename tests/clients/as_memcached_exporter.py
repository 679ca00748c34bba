"""Reads the figures by the rules of Prometheus' memcached_exporter, which is not in Debian 12.

It asks for `stats`, `stats settings`, `stats items` and `stats slabs`; a line that it cannot split or a
figure that it exports and cannot parse makes `memcached_up` 0.
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
    "moves_to_cold", "moves_to_warm", "moves_within_lru", "accepting_conns",
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

connection = socket.create_connection((HOST, PORT), 10)
replies = connection.makefile("rb")


def stats(topic=""):
    """The lines of a topic, each `STAT NAME VALUE`."""
    connection.sendall(f"stats {topic}".strip().encode() + b"\r\n")
    found = {}
    for line in replies:
        if line == b"END\r\n":
            return found
        parts = re.fullmatch(r"STAT (\S+) (\S+)\r\n", line.decode())
        same("a line of stats " + topic, parts is not None or line, True)
        same("a name that is there once", parts[1] not in found, True)
        found[parts[1]] = parts[2]
    raise EOFError(topic)


def numbers(what, found, names):
    for name in names:
        same(f"{what} has {name}", name in found, True)
        float(found[name])


def classes(topic, pattern):
    found = {}
    for name, value in stats(topic).items():
        parts = re.fullmatch(pattern, name)
        if parts:
            found.setdefault(int(parts[1]), {})[parts[2]] = value
    return found


general = stats()
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
items = classes("items", r"items:(\d+):(\w+)")
slabs = classes("slabs", r"(\d+):(\w+)")
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
        found = classes("items", r"items:(\d+):(\w+)")
        same(f"type {number} is a class", int(found[number]["number"]) >= 1, True)
ok("memcached_exporter: items and slabs can be parsed, class by class")
