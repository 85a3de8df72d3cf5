#!/usr/bin/env python3
"""Asks a DNS server for the IPv4 addresses of a name, by UDP through a SOCKS5 proxy (RFC 1928, UDP ASSOCIATE).

    contrib/socks-dns.py user:pass@localhost:1080 9.9.9.9 example.com

Needs nothing but Python 3. It shows what a client of the relay has to do.
"""

import ipaddress
import socket
import struct
import sys


def associate(proxy, user, password):
    """Logs in and asks for an association. Returns the control connection, and the address of the relay."""
    control = socket.create_connection(proxy, timeout=10)
    control.sendall(b"\5\1\2")
    if exactly(control, 2) != b"\5\2":
        sys.exit("the proxy does not offer user/password")
    control.sendall(b"\1" + counted(user) + counted(password))
    if exactly(control, 2) != b"\1\0":
        sys.exit("the login failed")
    # 0.0.0.0:0: the client does not say from where it is going to send.
    control.sendall(b"\5\3\0\1" + bytes(6))
    reply, kind = exactly(control, 4)[1::2]
    address = exactly(control, 4 if kind == 1 else 16)
    (port,) = struct.unpack("!H", exactly(control, 2))
    if reply != 0:
        sys.exit(f"UDP ASSOCIATE: reply {reply}")
    return control, (str(ipaddress.ip_address(address)), port)


def exactly(connection, count):
    """The next bytes of a connection."""
    received = b""
    while len(received) < count:
        more = connection.recv(count - len(received))
        if not more:
            sys.exit("the proxy closed the connection")
        received += more
    return received


def counted(text):
    """A length byte and the text."""
    return bytes([len(text.encode())]) + text.encode()


def question(name):
    """A question for the A records of a name (RFC 1035, section 4)."""
    labels = b"".join(counted(label) for label in name.rstrip(".").split("."))
    return struct.pack("!6H", 0x5353, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def addresses(answer, asked):
    """The A records of an answer."""
    _, flags, _, count, _, _ = struct.unpack_from("!6H", answer)
    if flags & 15:
        sys.exit(f"the DNS server answered with code {flags & 15}")
    at, found = len(asked), []
    for _ in range(count):
        while 0 < answer[at] < 0xC0:
            at += answer[at] + 1
        at += 2 if answer[at] else 1
        kind, _, _, length = struct.unpack_from("!2HIH", answer, at)
        at += 10
        if kind == 1:
            found.append(str(ipaddress.IPv4Address(answer[at : at + 4])))
        at += length
    return found


def main():
    """The command line."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    login, _, proxy = sys.argv[1].rpartition("@")
    host, _, port = proxy.rpartition(":")
    server, _, server_port = sys.argv[2].partition(":")
    user, _, password = login.partition(":")
    control, relay = associate((host, int(port)), user, password)
    asked = question(sys.argv[3])
    target = ipaddress.IPv4Address(server).packed + struct.pack("!H", int(server_port or 53))
    family = socket.AF_INET6 if ":" in relay[0] else socket.AF_INET
    with control, socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(5)
        # The header: RSV, FRAG, ATYP 01, address and port of the DNS server.
        datagrams.sendto(b"\0\0\0\1" + target + asked, relay)
        answer = datagrams.recv(65536)
        print("\n".join(addresses(answer[10:], asked)))


if __name__ == "__main__":
    main()
