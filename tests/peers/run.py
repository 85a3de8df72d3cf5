#!/usr/bin/env python3
"""make test-peers: real SOCKS5 clients against the built socks5d, on loopback.

PySocks and dnspython come from PyPI and `socks` from npm, into target/peers; dante-client is used where it is installed.
What cannot be had is skipped with a line; a client that fails ends it with exit code 1.
"""

import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACE = ROOT / "target" / "peers"
LOGIN = ("alice", "secret")
ADDRESS = "192.0.2.55"


def dns_server():
    """A DNS server that answers every question for an A record with one address. Returns its port."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve():
        while True:
            question, client = server.recvfrom(4096)
            end = question.index(b"\0", 12) + 5
            head = question[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)
            record = struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(ADDRESS)
            server.sendto(head + question[12:end] + record, client)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def echo_server():
    """A datagram server that sends back what it gets. Returns its port."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve():
        while True:
            server.sendto(*server.recvfrom(65536))

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def start(folder):
    """Starts socks5d on a free port. Returns the process and the port."""
    proxy = subprocess.Popen(
        [folder / "socks5d", "-l", "127.0.0.1", "-p", "0", "-P", "0", "-u", ":".join(LOGIN)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    for line in proxy.stderr:
        found = re.search(r"service=socks address=127\.0\.0\.1:(\d+)", line)
        if found:
            threading.Thread(target=proxy.stderr.read, daemon=True).start()
            return proxy, int(found.group(1))
    sys.exit("socks5d does not start")


def python_clients(port):
    """PySocks, which announces the name "0", and dnspython."""
    environment = PLACE / "python"
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", environment, "PySocks", "dnspython"]
    if not environment.exists() and subprocess.run(install, check=False).returncode:
        shutil.rmtree(environment, ignore_errors=True)
        return skipped("PySocks and dnspython cannot be installed")
    sys.path.insert(0, str(environment))
    import dns.message
    import dns.rdatatype
    import socks

    client = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
    client.set_proxy(socks.SOCKS5, "127.0.0.1", port, username=LOGIN[0], password=LOGIN[1])
    client.settimeout(10)
    echo = echo_server()
    for size in (0, 1, 1472, 8192):
        payload = os.urandom(size)
        client.sendto(payload, ("127.0.0.1", echo))
        received, source = client.recvfrom(65536)
        expect(received == payload and source[1] == echo, f"PySocks: {size} bytes there and back")
    server = dns_server()
    question = dns.message.make_query("host.test", "A")
    client.sendto(question.to_wire(), ("127.0.0.1", server))
    answer = dns.message.from_wire(client.recvfrom(4096)[0])
    expect(answer.answer[0][0].address == ADDRESS, "dnspython: an answer through PySocks")
    # By name: PySocks leaves the look-up to the proxy.
    client.sendto(question.to_wire(), ("localhost", server))
    answer = dns.message.from_wire(client.recvfrom(4096)[0])
    expect(answer.answer[0][0].address == ADDRESS, "dnspython: a server by its name")
    client.close()


def node_client(port):
    """npm's `socks`: ASSOCIATE and BIND."""
    folder = PLACE / "node"
    if not shutil.which("npm"):
        return skipped("npm is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, "socks@2"]
    if not (folder / "node_modules" / "socks").exists() and subprocess.run(install, check=False).returncode:
        return skipped("socks cannot be installed from npm")
    script = pathlib.Path(__file__).with_name("client.js")
    environment = {**os.environ, "NODE_PATH": str(folder / "node_modules")}
    done = subprocess.run(["node", script, str(port), *LOGIN, str(echo_server())], env=environment, timeout=60, check=False)
    expect(done.returncode == 0, "npm socks: ASSOCIATE and BIND")


def dante_client(port):
    """dante's socksify with dig."""
    if not shutil.which("socksify") or not shutil.which("dig"):
        return skipped("socksify (dante-client) and dig are not both installed")
    configuration = PLACE / "socks.conf"
    configuration.write_text(
        "route {\n from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = %d\n proxyprotocol: socks_v5\n"
        " method: username\n protocol: tcp udp\n command: connect udpassociate\n}\n" % port
    )
    environment = {**os.environ, "SOCKS_CONF": str(configuration), "SOCKS_USERNAME": LOGIN[0], "SOCKS_PASSWORD": LOGIN[1]}
    command = ["socksify", "dig", "+short", "+tries=1", "-p", str(dns_server()), "@127.0.0.1", "host.test"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    expect(ADDRESS in done.stdout, f"socksify dig: {done.stdout}{done.stderr}")


def expect(holds, what):
    """Says what holds, or ends."""
    if not holds:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def skipped(why):
    """Says what was not tried."""
    print(f"SKIPPED: {why}")


def main():
    """All clients, one after the other."""
    PLACE.mkdir(parents=True, exist_ok=True)
    proxy, port = start(pathlib.Path(sys.argv[1]).resolve())
    try:
        python_clients(port)
        node_client(port)
        dante_client(port)
    finally:
        proxy.terminate()
        proxy.wait()


if __name__ == "__main__":
    main()
