"""Programs of the command line: who needs no login, SOCKS4, HTTP CONNECT, and Tor's look-ups."""

import contextlib
import socket
import subprocess
import sys
import time

from common import ACCESS_LOG, BODY, LOGIN, PLACE, expect, has, logged, origin, output, proxy, site, skipped

REQUEST = "GET / HTTP/1.0\r\n\r\n"


def clients(folder):
    """All of them, first from a trusted network, then from elsewhere."""
    port = origin(site())
    with proxy(folder, "--trust", "127.0.0.0/8", "--http-connect") as at:
        curl_without_login(at, port)
        netcat(at, port)
        socat(at, port)
        links(at, port)
        haproxy(at, port)
        tor(at)
    with proxy(folder, "--trust", "127.0.0.0/8", "--trust-any-login") as at:
        torsocks(at)
    with proxy(folder, "-u", ":".join(LOGIN), "--http-connect") as at:
        curl_with_login(at, port)
        socat_with_login(at, port)


def curl(*arguments):
    """curl, from loopback to loopback."""
    return output("curl", "-sS", "-m", "20", "--noproxy", "", *arguments)


def curl_without_login(at, port):
    """The kinds of proxy that curl knows."""
    url = f"http://localhost:{port}/"
    for kind in ["socks4", "socks4a", "socks5", "socks5h", "http"]:
        words = ["--proxytunnel"] if kind == "http" else []
        said, _ = curl(*words, "-x", f"{kind}://127.0.0.1:{at}", url.replace("localhost", "127.0.0.1"))
        expect(said == BODY, f"curl: {kind}, no login: {said}")
    said, _ = curl("-x", f"socks4a://127.0.0.1:{at}", url)
    expect(said == BODY, f"curl: socks4a, by name: {said}")
    said, _ = curl("-w", "%{http_code}", "-x", f"http://127.0.0.1:{at}", url)
    expect(said.endswith("501") and "HTTP CONNECT" in said, f"curl: a plain request is told what this is: {said}")


def curl_with_login(at, port):
    """A login is needed, and only Basic is one."""
    login, url = ":".join(LOGIN), f"http://127.0.0.1:{port}/"
    for kind in ["socks5", "socks5h", "http"]:
        words = ["--proxytunnel"] if kind == "http" else []
        said, _ = curl(*words, "-x", f"{kind}://{login}@127.0.0.1:{at}", url)
        expect(said == BODY, f"curl: {kind} with a login: {said}")
        for wrong in ["", f"{LOGIN[0]}:wrong@"]:
            said, code = curl(*words, "-x", f"{kind}://{wrong}127.0.0.1:{at}", url)
            expect(code in (56, 97), f"curl: {kind} refused with {wrong or 'no login'}: {said}")
    said, _ = curl("--proxytunnel", "--proxy-digest", "-x", f"http://{login}@127.0.0.1:{at}", url)
    expect("407" in said, f"curl: proxy-digest refused: {said}")
    said, _ = curl("--proxytunnel", "--proxy-anyauth", "-x", f"http://{login}@127.0.0.1:{at}", url)
    expect(said == BODY, f"curl: proxy-anyauth finds Basic: {said}")
    for kind in ["socks4", "socks4a"]:
        said, code = curl("-x", f"{kind}://{LOGIN[0]}@127.0.0.1:{at}", url)
        expect(code == 97, f"curl: {kind} refused: {said}")


def talk(*command):
    """What a program prints that is sent a request of HTTP."""
    return output(*command, input=REQUEST, stdin=None, timeout=20)[0]


def netcat(at, port):
    """nc of OpenBSD."""
    if not has("nc"):
        return
    if "-X" not in output("nc", "-h")[0]:
        return print("SKIPPED: this nc knows no proxies")
    for kind in ["5", "4", "connect"]:
        said = talk("nc", "-N", "-w", "10", "-X", kind, "-x", f"127.0.0.1:{at}", "127.0.0.1", str(port))
        expect(said.endswith(BODY), f"nc -X {kind}: {said}")


def socat(at, port):
    """socat's addresses for proxies."""
    if not has("socat"):
        return
    for address in [
        f"SOCKS4:127.0.0.1:127.0.0.1:{port},socksport={at}",
        f"SOCKS4A:127.0.0.1:localhost:{port},socksport={at}",
        f"PROXY:127.0.0.1:127.0.0.1:{port},proxyport={at}",
    ]:
        said = talk("socat", "-t", "10", "-", address)
        expect(said.endswith(BODY), f"socat {address.split(':')[0]}: {said}")


def socat_with_login(at, port):
    """socat logs in to proxies of HTTP."""
    if has("socat"):
        login = ":".join(LOGIN)
        said = talk("socat", "-t", "10", "-", f"PROXY:127.0.0.1:127.0.0.1:{port},proxyport={at},proxyauth={login}")
        expect(said.endswith(BODY), f"socat PROXY with a login: {said}")


def links(at, port):
    """links2 speaks SOCKS4A alone."""
    if has("links2"):
        said, _ = output("links2", "-socks-proxy", f"127.0.0.1:{at}", "-source", f"http://127.0.0.1:{port}/")
        expect(BODY in said, f"links2: {said}")


def haproxy(at, port):
    """A server behind `socks4`."""
    if not has("haproxy"):
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        front = free.getsockname()[1]
    configuration = PLACE / "haproxy.cfg"
    configuration.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
        f"listen front\n bind 127.0.0.1:{front}\n server origin 127.0.0.1:{port} socks4 127.0.0.1:{at}\n"
    )
    process = subprocess.Popen(["haproxy", "-db", "-f", configuration], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", front), 1):
                break
            time.sleep(0.05)
        said, _ = curl(f"http://127.0.0.1:{front}/")
        expect(said == BODY, f"haproxy, a server with socks4: {said}")
    finally:
        process.terminate()
        process.wait()
    logged("\t4\t127.0.0.1\t", "they came by SOCKS4")


def tor(at):
    """RESOLVE and RESOLVE_PTR."""
    if not has("tor-resolve"):
        return
    said, _ = output("tor-resolve", "localhost", f"127.0.0.1:{at}")
    expect(said.strip() == "127.0.0.1", f"tor-resolve: {said}")
    said, _ = output("tor-resolve", "-4", "localhost", f"127.0.0.1:{at}")
    expect(said.strip() == "127.0.0.1", f"tor-resolve -4: {said}")
    said, _ = output("tor-resolve", "-x", "127.0.0.1", f"127.0.0.1:{at}")
    expect(said.strip() == socket.gethostbyaddr("127.0.0.1")[0], f"tor-resolve -x: {said}")


def own_address():
    """An address of this machine that is not loopback, or `None`. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("198.51.100.1", 9))
            return probe.getsockname()[0]
    return None


def torsocks(at):
    """A program below torsocks: its names go through the proxy, and with -i it makes up a login.

    The origin is at another address of this machine: to loopback, torsocks connects without its proxy, or not at all.
    """
    if not has("torsocks"):
        return None
    address = own_address()
    if not address:
        return skipped("this machine has no address but loopback: torsocks was not tried")
    port, name = origin(site(), address=address), socket.gethostname()
    fetch = f"import socket; print(socket.gethostbyname({name!r}));"
    fetch += f"s = socket.create_connection(({address!r}, {port}), 20);"
    fetch += f"s.sendall({REQUEST.encode()}); print(s.makefile().read())"
    for words in [[], ["-i"]]:
        seen = len(ACCESS_LOG.read_text())
        said, _ = output("torsocks", *words, "-a", "127.0.0.1", "-P", str(at), sys.executable, "-c", fetch)
        expect(BODY in said, f"torsocks {' '.join(words)}: {said}")
        logged(f"\t{name}\t42\t0\t", "the name was looked up by RESOLVE", seen)
        logged(f"\t{address}\t{port}\t0\t", "the connection came through the proxy", seen)
    return None
