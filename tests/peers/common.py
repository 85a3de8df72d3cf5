"""What the tests with real clients share: the proxy, an origin, and how results are said."""

import contextlib
import http.server
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACE = ROOT / "target" / "peers"
LOGIN = ("alice", "secret")
ACCESS_LOG = PLACE / "access.log"
BODY = "the page of the origin\n"


@contextlib.contextmanager
def proxy(folder, *options):
    """Runs socks5d on a free port, which is the value."""
    arguments = ["-l", "127.0.0.1", "-p", "0", "-P", "0", *options]
    with open(ACCESS_LOG, "w", encoding="ascii") as log:
        process = subprocess.Popen(
            [folder / "socks5d", *arguments], stdout=log, stderr=subprocess.PIPE, text=True,
        )
    try:
        for line in process.stderr:
            found = re.search(r"service=socks address=127\.0\.0\.1:(\d+)", line)
            if found:
                break
        else:
            sys.exit("socks5d does not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield int(found.group(1))
    finally:
        process.terminate()
        process.wait()


def origin(folder, certificate=None, address="127.0.0.1"):
    """A server of the files in a folder, over TLS if it has a certificate. Returns its port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        """Says nothing."""

        def __init__(self, *arguments, **more):
            super().__init__(*arguments, directory=str(folder), **more)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((address, 0), Quiet)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def site():
    """A folder with a page."""
    folder = PLACE / "site"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(BODY)
    return folder


def certificate():
    """A file with key and certificate of localhost; `None` without openssl."""
    both = PLACE / "certificate.pem"
    if not has("openssl"):
        return None
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", both, "-out", PLACE / "public.pem"]
    if run(*command, capture_output=True).returncode:
        return None
    both.write_text(both.read_text() + (PLACE / "public.pem").read_text())
    return both


def has(program):
    """Whether a program is installed; says so if not."""
    found = shutil.which(program)
    if not found:
        skipped(f"{program} is not installed")
    return found


def run(*command, **more):
    """Runs a program, which has a time."""
    try:
        return subprocess.run(command, check=False, **{"timeout": 180, **more})
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{command[0]}: {error}")
        return subprocess.CompletedProcess(command, 1, "", str(error))


def output(*command, **more):
    """What a program prints, both streams together, and its exit code."""
    done = run(*command, **{"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60, **more})
    return (done.stdout or "") + (done.stderr or ""), done.returncode


def expect(holds, what):
    """Says what holds, or ends."""
    if not holds:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what.splitlines()[0]}")


def logged(text, what, seen=0):
    """Waits for a text in the access log, behind the characters that were seen before."""
    deadline = time.monotonic() + 10
    while text not in ACCESS_LOG.read_text()[seen:] and time.monotonic() < deadline:
        time.sleep(0.05)
    expect(text in ACCESS_LOG.read_text()[seen:], what)


def skipped(why):
    """Says what was not tried."""
    print(f"SKIPPED: {why}")
