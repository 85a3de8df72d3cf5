"""Prometheus: its checks of formats and alerts, and a server with 10,000 accounts that it watches until its end."""

import contextlib
import hashlib
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

from common import ROOT, expect, has, output

ALERTS = ROOT / "contrib" / "prometheus" / "alerts.yml"
ALERTS_TEST = ROOT / "tests" / "peers" / "alerts_test.yml"
ACCOUNTS = 10_000
# Seconds that something may take before it has failed.
PATIENCE = 60
BUSY = ["busy0", "busy1", "busy2"]
# Bytes there and back, of a quota of 1000.
ALMOST = 475


def clients(folder):
    """All of it."""
    if not has("promtool") or not has("prometheus"):
        return
    for words in (["check", "rules", ALERTS], ["test", "rules", ALERTS_TEST]):
        said, code = output("promtool", *words)
        expect(code == 0, f"promtool {words[0]} rules\n{said}")
    with tempfile.TemporaryDirectory() as place, server(folder, pathlib.Path(place)) as (process, socks, http):
        traffic(socks)
        for path in ("/metrics", "/metrics/users"):
            said, code = output("promtool", "check", "metrics", input=get(http, path), stdin=None)
            expect((said, code) == ("", 0), f"promtool check metrics: {path} is clean\n{said}")
        with prometheus(pathlib.Path(place), http) as api:
            watched(api)
            reader_that_stops(api, http)
            alerts(api, process)


@contextlib.contextmanager
def server(folder, place):
    """A server with many accounts, all of which have moved bytes before and have a quota."""
    names = [f"account-{number:0>60}" for number in range(ACCOUNTS)]
    lines = ["*::quota=1GB/month"] + [f"{name}:=pw" for name in names]
    lines += [f"{name}:=pw" for name in BUSY] + ["almost:=pw:quota=1kB/total"]
    (place / "users").write_text("\n".join(lines) + "\n")
    (place / "users").chmod(0o600)
    (place / "state").mkdir()
    figures = "socks5d-usage 1\nsince=1 connections=0 up=0 down=0\n"
    figures += "".join(f"user={name} since=1 total=1 up=1000 down=2000 seen=- base=0 period=-\n" for name in names)
    figures += f"end accounts={len(names)} blake2b="
    digest = hashlib.blake2b(figures.rsplit("end ", 1)[0].encode(), digest_size=32).hexdigest()
    (place / "state" / "usage").write_text(f"{figures}{digest}\n")
    arguments = ["-l", "127.0.0.1", "-p", "0", "-P", "0", "--http", "127.0.0.1:0", "--linger-timeout", "2"]
    arguments += ["--users", place / "users", "--state", place / "state", "--access-log", "off"]
    process = subprocess.Popen([folder / "socks5d", *arguments], stderr=subprocess.PIPE, text=True)
    try:
        ports = {}
        for line in process.stderr:
            if found := re.search(r"service=(\w+) address=127\.0\.0\.1:(\d+)", line):
                ports[found.group(1)] = int(found.group(2))
            if {"socks", "http"} <= ports.keys():
                break
        else:
            sys.exit("socks5d does not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process, ports["socks"], ports["http"]
    finally:
        process.kill()
        process.wait()


def traffic(socks):
    """Some accounts move bytes through the proxy, one of them almost all that it may."""
    echo = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            peer, _ = echo.accept()
            with peer:
                while data := peer.recv(65536):
                    peer.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    for name, count in [*((name, 100_000) for name in BUSY), ("almost", ALMOST)]:
        with socket.create_connection(("127.0.0.1", socks), PATIENCE) as tunnel:
            login = b"\x05\x01\x02\x01" + bytes([len(name)]) + name.encode() + b"\x02pw"
            port = echo.getsockname()[1].to_bytes(2, "big")
            tunnel.sendall(login + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port)
            replies = exactly(tunnel, 14)
            expect(replies[:6] == b"\x05\x02\x01\x00\x05\x00", f"{name} has a tunnel")
            tunnel.sendall(b"x" * count)
            exactly(tunnel, count)


def exactly(stream, count):
    """So many bytes."""
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            sys.exit("FAILED: the tunnel has ended")
        data += more
    return data


def get(port, path):
    """A page of the server or of Prometheus."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as response:
        return response.read().decode()


@contextlib.contextmanager
def prometheus(place, http):
    """A Prometheus that scrapes the server. The value asks its API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    targets = f'static_configs: [{{ targets: ["127.0.0.1:{http}"] }}]'
    configuration = place / "prometheus.yml"
    configuration.write_text(
        # A scrape may take as long as there is between two, and the machine may be busy.
        f"global: {{ scrape_interval: 5s, scrape_timeout: 5s, evaluation_interval: 1s }}\n"
        f"rule_files: [{ALERTS}]\nscrape_configs:\n"
        f"  - job_name: socks5d\n    {targets}\n"
        f"  - job_name: socks5d-users\n    metrics_path: /metrics/users\n    {targets}\n"
    )
    said, code = output("promtool", "check", "config", configuration)
    expect(code == 0, f"promtool check config\n{said}")
    command = ["prometheus", f"--config.file={configuration}", f"--web.listen-address=127.0.0.1:{port}"]
    with open(place / "prometheus.log", "wb") as log:
        process = subprocess.Popen([*command, f"--storage.tsdb.path={place / 'data'}"], stderr=log, stdout=log)

    def ask(path, **words):
        words = f"?{urllib.parse.urlencode(words)}" if words else ""
        try:
            return json.loads(get(port, f"/api/v1/{path}{words}"))["data"]
        except OSError:
            # It does not listen yet.
            return {}

    try:
        yield ask
    finally:
        process.terminate()
        process.wait()


def value(api, query):
    """The value of an expression; `None` if it has none."""
    found = api("query", query=query).get("result") or [{"value": (0, "nan")}]
    number = float(found[0]["value"][1])
    return None if number != number else number


def eventually(what, condition):
    """Waits for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    expect(found, what)


def watched(api):
    """What Prometheus has of the server."""
    eventually("prometheus: both jobs are up", lambda: value(api, "sum(up)") == 2)
    eventually(
        f"prometheus: {ACCOUNTS} accounts have a series each",
        lambda: value(api, "count(socks5d_user_connections)") == ACCOUNTS + len(BUSY) + 1,
    )
    for name in BUSY:
        query = f'sum(socks5d_user_payload_bytes_total{{user="{name}"}})'
        expect(value(api, query) == 200_000, f"prometheus: what {name} has moved")
    expect(value(api, 'sum(socks5d_auth_total{result="ok"})') == len(BUSY) + 1, "prometheus: the logins")
    expect(value(api, "min(socks5d_store_ok)") == 1, "prometheus: all files were written")


def reader_that_stops(api, http):
    """A reader of all accounts that stops reading is cut off, and keeps no scrape from being answered."""
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.settimeout(PATIENCE)
        reader.connect(("127.0.0.1", http))
        reader.sendall(b"GET /metrics/users HTTP/1.1\r\nHost: localhost\r\n\r\n")
        text = reader.recv(1024)
        # The scrape that says so is the second session; another one of Prometheus may be a third.
        sessions = r'\nsocks5d_sessions{service="http"} (\d+)\n'
        eventually(
            "a reader that has stopped is cut off",
            lambda: re.search(sessions, get(http, "/metrics")).group(1) == "1",
        )
        with contextlib.suppress(ConnectionResetError):
            while data := reader.recv(65536):
                text = (text + data)[-1024:]
        expect(not text.endswith(b"0\r\n\r\n"), "the answer has no end then")
    expect(value(api, "min(min_over_time(up[5m]))") == 1, "prometheus: no scrape has failed meanwhile")
    took = value(api, "max(max_over_time(scrape_duration_seconds[5m]))")
    print(f"NOTE: the longest scrape took {took:.3f} s")


def alerts(api, process):
    """The shipped alerts: one fires while the server runs, another one when it has been killed."""
    rules = [rule for group in api("rules")["groups"] for rule in group["rules"]]
    names = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    expect([rule["name"] for rule in rules] == names, "prometheus: all alerts are loaded")

    def active():
        return {(alert["labels"]["alertname"], alert["labels"].get("user")) for alert in api("alerts")["alerts"]}

    eventually("prometheus: the quota alone is an alert", lambda: active() == {("Socks5dQuotaAlmostUsed", "almost")})
    expect(all(rule["health"] == "ok" for rule in rules), "prometheus: all alerts can be evaluated")
    process.kill()
    process.wait()
    eventually("prometheus: the server that was killed is an alert", lambda: ("Socks5dDown", None) in active())
