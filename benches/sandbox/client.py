"""Downloads from the benchmark's server and says, as JSON, how fast: `ADDRESS PORT BYTES [PROXY_ADDRESS PROXY_PORT]`.

The same program runs in the sandbox, where it goes through the gateway by CONNECT, and in a bare container.
"""

import json
import socket
import statistics
import sys
import time

address, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
proxy = (sys.argv[4], int(sys.argv[5])) if len(sys.argv) > 5 else None
buffer = bytearray(1 << 20)


def head(connection):
    """Reads up to the empty line, byte for byte, so that nothing of the body is taken."""
    text = b""
    while not text.endswith(b"\r\n\r\n"):
        more = connection.recv(1)
        if not more:
            sys.exit("the connection ended early: %r" % text)
        text += more
    if b" 200 " not in text.split(b"\r\n")[0]:
        sys.exit("refused: %r" % text)


def connect():
    connection = socket.create_connection(proxy or (address, port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if proxy:
        connection.sendall(f"CONNECT {address}:{port} HTTP/1.1\r\nHost: {address}:{port}\r\n\r\n".encode())
        head(connection)
    return connection


def get(connection, size):
    connection.sendall(f"GET /{size} HTTP/1.1\r\nHost: {address}:{port}\r\n\r\n".encode())
    head(connection)
    while size:
        count = connection.recv_into(buffer, min(size, len(buffer)))
        if not count:
            sys.exit("the connection ended early")
        size -= count


def timed(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def new_connection():
    with connect() as connection:
        get(connection, 1)


new_connection()
opening = statistics.median(timed(new_connection) for _ in range(50))
with connect() as connection:
    get(connection, 1)
    trip = statistics.median(timed(lambda: get(connection, 1)) for _ in range(200))
    rate = size / timed(lambda: get(connection, size))
print(json.dumps({"opening": opening, "trip": trip, "rate": rate}))
