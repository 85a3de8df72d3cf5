"""The units, as systemd-analyze reads them; it needs no running systemd."""

import contextlib
import re
import socket
import subprocess
import time

from common import LOGIN, PLACE, ROOT, expect, has, output

UNITS = ROOT / "contrib" / "systemd"
# Exposure times 10: below 2.0 is systemd's "OK".
THRESHOLD = "20"


def units(folder):
    """No unit has a fault, and the service exposes little."""
    if not has("systemd-analyze"):
        return
    place = PLACE / "units"
    place.mkdir(parents=True, exist_ok=True)
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/local/bin/socks5d", str(folder / "socks5d"))
        (place / unit.name).write_text(text)
    copies = sorted(place / unit.name for unit in UNITS.iterdir())
    said, code = output("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *copies)
    expect(code == 0 and not said.strip(), f"systemd-analyze verify: {len(copies)} units without a fault\n{said}")
    service = place / "socks5d.service"
    said, code = output("systemd-analyze", "security", "--offline=yes", f"--threshold={THRESHOLD}", service)
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    expect(code == 0 and exposure, f"systemd-analyze security: {exposure.group(1) if exposure else said}")


def free_port():
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def activation(folder):
    """systemd-socket-activate opens the ports and starts the server at the first connection."""
    if not has("systemd-socket-activate"):
        return
    port, metp = free_port(), free_port()
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-l", f"127.0.0.1:{metp}"]
    command += ["--fdname=socks:metp", "-E", "PROXY_CTRL_SUPERUSER=" + ":".join(LOGIN), folder / "socks5d"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        greeting = b""
        while time.monotonic() < deadline and not greeting:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(b"\x05\x01\x02")
                greeting = client.recv(2)
            time.sleep(0.05)
        expect(greeting == b"\x05\x02", "systemd-socket-activate: SOCKS on its socket")
        with socket.create_connection(("127.0.0.1", metp), 10) as client:
            client.sendall(f"HELLO METP/1.0\nAUTH {LOGIN[0]} {LOGIN[1]}\nQUIT\n".encode())
            said = client.makefile().read()
        expect("200 OK" in said, f"systemd-socket-activate: METP on its socket: {said}")
    finally:
        process.terminate()
        process.wait()
