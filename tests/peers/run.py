#!/usr/bin/env python3
"""make test-peers: real clients and Prometheus against the built socks5d, on loopback.

Libraries come from PyPI, npm and crates.io, into target/peers; programs are used where they are installed.
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
import time

import browser
import cluster
import command_line
import monitoring
import packages
import page
import service
import suite
from common import LOGIN, PLACE, expect, proxy, run, skipped

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


def python_clients(port):
    """PySocks, which announces the name "0", and dnspython."""
    environment = PLACE / "python"
    packages = ["PySocks", "dnspython", "pyftpdlib"]
    install = [sys.executable, "-m", "pip", "install", "-q", "--retries", "1", "--timeout", "10"]
    install += ["--target", environment, *packages]
    if not environment.exists() and run(*install).returncode:
        shutil.rmtree(environment, ignore_errors=True)
        return skipped("PySocks, dnspython and pyftpdlib cannot be installed")
    sys.path.insert(0, str(environment))
    try:
        import dns.message
        import socks
    except ImportError as error:
        return skipped(f"PySocks and dnspython cannot be used: {error}")

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
    if not (folder / "node_modules" / "socks").exists() and run(*install).returncode:
        return skipped("socks cannot be installed from npm")
    script = pathlib.Path(__file__).with_name("client.js")
    environment = {**os.environ, "NODE_PATH": str(folder / "node_modules")}
    command = ["node", script, str(port), *LOGIN, str(echo_server())]
    done = subprocess.run(command, env=environment, timeout=60, check=False)
    expect(done.returncode == 0, "npm socks: ASSOCIATE and BIND")


def rust_client(port):
    """tokio-socks: BIND."""
    folder = PLACE / "tokio-socks"
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "Cargo.toml").write_text(
        '[package]\nname = "peer"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[dependencies]\n'
        'tokio = { version = "1", features = ["rt", "net", "io-util", "macros"] }\ntokio-socks = "0.5"\n'
    )
    shutil.copy(pathlib.Path(__file__).with_name("tokio_socks.rs"), folder / "src" / "main.rs")
    if run("cargo", "build", "-q", cwd=folder).returncode:
        return skipped("tokio-socks cannot be built")
    program = folder / "target" / "debug" / "peer"
    done = subprocess.run([program, str(port), *LOGIN], timeout=60, check=False)
    expect(done.returncode == 0, "tokio-socks: BIND")


def dante_client(port):
    """dante's socksify, with dig and with active FTP."""
    if not shutil.which("socksify"):
        return skipped("socksify (dante-client) is not installed")
    configuration = PLACE / "socks.conf"
    configuration.write_text(
        "route {\n from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = %d\n proxyprotocol: socks_v5\n"
        " method: username\n protocol: tcp udp\n command: bind connect udpassociate\n}\n" % port
    )
    login = {"SOCKS_CONF": str(configuration), "SOCKS_USERNAME": LOGIN[0], "SOCKS_PASSWORD": LOGIN[1]}

    def socksify(*command, **more):
        return subprocess.run(
            ["socksify", *command], env={**os.environ, **login}, capture_output=True, text=True, timeout=60,
            check=False, **more,
        )

    if shutil.which("dig"):
        done = socksify("dig", "+short", "+tries=1", "-p", str(dns_server()), "@127.0.0.1", "host.test")
        expect(ADDRESS in done.stdout, f"socksify dig: {done.stdout}{done.stderr}")
    else:
        skipped("dig is not installed")
    if not shutil.which("tnftp") or not (PLACE / "python" / "pyftpdlib").exists():
        return skipped("tnftp and pyftpdlib are not both there")
    files = PLACE / "files"
    files.mkdir(exist_ok=True)
    (files / "file").write_bytes(os.urandom(300_000))
    (PLACE / "file").unlink(missing_ok=True)
    server = ftp_server(files)
    words = f"open 127.0.0.1 {server}\nuser anonymous none\nbinary\nget file\nquit\n"
    done = socksify("tnftp", "-A", "-n", "-v", input=words, cwd=PLACE)
    got = (PLACE / "file").read_bytes() if (PLACE / "file").exists() else b""
    expect(got == (files / "file").read_bytes(), f"socksify ftp, active: {done.stdout}{done.stderr}")
    by_bind = re.compile(r"\t0\.0\.0\.0\t0\t0\t0\t300000\t")
    deadline = time.monotonic() + 10
    while not by_bind.search((PLACE / "access.log").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    expect(by_bind.search((PLACE / "access.log").read_text()), "the file came by BIND")


def ftp_server(files):
    """An FTP server for anonymous. Returns its port."""
    # Only after python_clients has found its place.
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer

    authorizer = DummyAuthorizer()
    authorizer.add_anonymous(str(files))
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer, "permit_foreign_addresses": True})
    server = FTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.socket.getsockname()[1]


def datagrams_and_bind(folder):
    """Clients that log in, for ASSOCIATE and BIND."""
    with proxy(folder, "-u", ":".join(LOGIN)) as port:
        python_clients(port)
        node_client(port)
        rust_client(port)
        dante_client(port)


def main():
    """All clients, one after the other."""
    PLACE.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(sys.argv[1]).resolve()
    datagrams_and_bind(folder)
    service.units(folder)
    service.activation(folder)
    command_line.clients(folder)
    packages.clients(folder)
    browser.clients(folder)
    page.clients(folder)
    suite.python_socks(folder)
    monitoring.clients(folder)
    cluster.manifests()


if __name__ == "__main__":
    main()
