"""Opens COUNT connections to HOST PORT at once and listens on as many ports; tells how many of each went well.

Each connection sends its number, ends, and has to get it back.
"""

import socket
import sys

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
made, listeners = [], []
for _ in range(count):
    try:
        made.append(socket.create_connection((host, port), timeout=60))
    except OSError:
        break
for number, connection in enumerate(made):
    connection.sendall(b"echo\n" + str(number).encode())
    connection.shutdown(socket.SHUT_WR)
right = 0
for number, connection in enumerate(made):
    data = b""
    while chunk := connection.recv(1000):
        data += chunk
    right += data == str(number).encode()
    connection.close()
for _ in range(count):
    try:
        listeners.append(socket.create_server(("", 0)))
    except OSError:
        break
print(right, len(listeners))
