"""Passes one memcached conversation after the other on to a server, and says that it is 1.6.0.

memccapable decides by the version what it expects; ours is a version of its own, and what it
follows is memcached 1.6. Usage: as_memcached_1_6.py HOST PORT; prints the port it listens on.
"""

import re
import socket
import sys
import threading


def copy(source, target, edit):
    try:
        while data := source.recv(65536):
            target.sendall(edit(data))
    except OSError:
        pass
    # The other side sees the end as this one did.
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def relay(client, server):
    version = lambda data: re.sub(rb"VERSION [0-9.]+\r\n", b"VERSION 1.6.0\r\n", data)
    threading.Thread(target=copy, args=(server, client, version), daemon=True).start()
    copy(client, server, bytes)


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
address = (sys.argv[1], int(sys.argv[2]))
while True:
    client, _ = listener.accept()
    server = socket.create_connection(address)
    for one in (client, server):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=relay, args=(client, server), daemon=True).start()
