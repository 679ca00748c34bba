"""Python's ssl, alone and in pymemcache, with a login."""

import os
import socket
import ssl

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError
from steps import BODY, HOST, MEMBERS, PORT, TYPED, ok, raises, same

context = ssl.create_default_context(cafile=os.environ["AUTHORITY"])
LOGIN = b"set auth 0 0 12\r\nalice secret\r\n"

connection = context.wrap_socket(socket.create_connection((HOST, PORT), 10), server_hostname="localhost")
same("the version", connection.version(), "TLSv1.3")
replies = connection.makefile("rb")
connection.sendall(LOGIN)
same("login", replies.readline(), b"STORED\r\n")
# More than a record of TLS, in both directions, and requests that arrive in pieces.
value = os.urandom(500_000)
request = b"set large 7 0 500000\r\n" + value + b"\r\n"
for at in range(0, len(request), 33_333):
    connection.sendall(request[at : at + 33_333])
same("set", replies.readline(), b"STORED\r\n")
# memcached 1.6.18 would not see it, had it come in one piece with the end of the value.
connection.sendall(b"get large\r\n")
same("get", replies.readline(), b"VALUE large 7 500000\r\n")
same("the value", replies.read(500_002) == value + b"\r\n", True)
same("the end", replies.readline(), b"END\r\n")
connection.sendall(b"get missing\r\n" * 1000)
same("1,000 at once", replies.read(5000), b"END\r\n" * 1000)
connection.sendall(b"quit\r\n")
same("after quit", replies.read(), b"")
ok("ssl: a login, 500,000 bytes both ways, pipelined requests")

client = Client((HOST, PORT), default_noreply=False, timeout=10, tls_context=context)
same("login", client.set("auth", b"alice secret"), True)
same("set_many", client.set_many({f"tls:{n}": b"%d" % n for n in range(300)}), [])
same("get_many", len(client.get_many([f"tls:{n}" for n in range(300)])), 300)
same("cas", client.cas("tls:1", b"new", client.gets("tls:1")[1]), True)
same("incr", client.incr("tls:2", 3), 5)
same("delete", client.delete("tls:3"), True)
same("get", client.get("tls:3"), None)
if TYPED:
    same("set of an INDEX", client.set("1.1", BODY), True)
    same("fan-out", client.incr("1.1", 1), MEMBERS)
    same("a counter", client.get("2.600000"), b"1")
ok("pymemcache: a login, and its verbs")

stranger = Client((HOST, PORT), default_noreply=False, timeout=10, tls_context=context)
raises("no login", MemcacheClientError, lambda: stranger.set("name", b"x"))
distrustful = ssl.create_default_context()
raises(
    "a certificate of nobody's",
    ssl.SSLError,
    lambda: Client((HOST, PORT), timeout=10, tls_context=distrustful).get("name"),
)
ok("pymemcache: refused without a login, and refusing without the authority")
