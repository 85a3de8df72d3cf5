"""The page of `--http` in Chromium, headless: at three sizes, light and dark, by keyboard, against METP, and without its
server.

Pictures of it come to target/peers/page; `make test-peers` shows where.
"""

import base64
import contextlib
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from browser import DevTools, chromium_here
from common import PLACE, expect, skipped

PATIENCE = 60
SIZES = {"phone": (390, 844, True), "laptop": (1280, 800, False), "wide": (1920, 1080, False)}
SCRIPT_NAME = "<script>alert(1)</script>"
# A name that a terminal or a page would show backwards (U+202E).
BIDI_NAME = "moc.\u202eelpmaxe"
USERS = ("alice", "bob", "carol", SCRIPT_NAME)
PASSWORD = "pw"
SUPERUSER = "admin:1234"


class Server:
    """socks5d with its page, always on the ports of its first start."""

    def __init__(self, folder):
        self.folder = folder
        self.ports = {"socks": 0, "metp": 0, "http": 0}
        self.process = None

    def start(self):
        """Starts it, and waits until it listens."""
        words = [self.folder / "socks5d", "-l", "127.0.0.1", "-p", str(self.ports["socks"])]
        words += ["-P", str(self.ports["metp"]), "--http", f"127.0.0.1:{self.ports['http']}", "--access-log", "off"]
        for name in USERS:
            words += ["-u", f"{name}:{PASSWORD}"]
        self.process = subprocess.Popen(
            words, stderr=subprocess.PIPE, text=True, env={"PROXY_CTRL_SUPERUSER": SUPERUSER},
        )
        for line in self.process.stderr:
            found = re.search(r"service=(\w+) address=127\.0\.0\.1:(\d+)", line)
            if found:
                self.ports[found.group(1)] = int(found.group(2))
            if all(self.ports.values()) and found and found.group(1) == "http":
                break
        else:
            sys.exit("socks5d does not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def kill(self):
        """Ends it without a word."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, command):
        """The body of a command of METP, as a dictionary of its pairs."""
        with socket.create_connection(("127.0.0.1", self.ports["metp"])) as admin:
            name, password = SUPERUSER.split(":")
            admin.sendall(f"HELLO METP/1.0\nAUTH {name} {password}\n{command}\nQUIT\n".encode())
            with admin.makefile("r", encoding="ascii") as answer:
                lines = answer.read().splitlines()
        pairs = (re.match(r"([\w-]+)(?:=|: *)(.*)", line) for line in lines)
        return {pair.group(1): pair.group(2) for pair in pairs if pair}


def logged_in(port, name, password):
    """A connection that has logged in; `None` if it was refused."""
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.sendall(b"\x05\x01\x02")
    client.recv(2)
    name, password = name.encode(), password.encode()
    client.sendall(bytes([1, len(name)]) + name + bytes([len(password)]) + password)
    if client.recv(2) == b"\x01\x00":
        return client
    client.close()
    return None


def tunnel(port, name, host, target):
    """A tunnel to a port of a host; `None` if it was refused."""
    client = logged_in(port, name, PASSWORD)
    host = host.encode()
    client.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + struct.pack("!H", target))
    if client.recv(10)[1:2] == b"\x00":
        return client
    client.close()
    return None


def echo():
    """A server that sends back what it gets. Returns its port."""
    server = socket.create_server(("127.0.0.1", 0), backlog=128)

    def serve(client):
        with contextlib.suppress(OSError), client:
            while received := client.recv(65536):
                client.sendall(received)

    def accept():
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()[1]


def load(port):
    """Tunnels that have moved something, refused requests and failed logins. Returns the tunnels."""
    target, tunnels = echo(), []
    for number in range(40):
        client = tunnel(port, USERS[number % len(USERS)], ("127.0.0.1", "localhost")[number % 2], target)
        sent = bytes(1000 * (number + 1))
        client.sendall(sent)
        received = 0
        while received < len(sent):
            received += len(client.recv(65536))
        tunnels.append(client)
    for _ in range(5):
        tunnel(port, SCRIPT_NAME, BIDI_NAME, 80)
        logged_in(port, "=root", "wrong")
    return tunnels


@contextlib.contextmanager
def moving(tunnels):
    """Bytes move through the tunnels, there and back, for as long as the page is looked at."""
    over = threading.Event()

    def move():
        deadline = time.monotonic() + 5 * PATIENCE
        while not over.is_set() and time.monotonic() < deadline:
            for client in tunnels:
                client.sendall(bytes(20_000))
                left = 20_000
                while left:
                    left -= len(client.recv(left))

    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        over.set()
        mover.join()


class Page:
    """A tab of the browser."""

    def __init__(self, browser):
        self.browser = browser
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """Sends a command and waits for its result."""
        return self.browser.ask(method, self.session, **parameters)

    def value(self, expression, may_fail=False):
        """The value of an expression of JavaScript."""
        asked = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in asked and not may_fail:
            sys.exit(f"FAILED: {expression}: {asked['exceptionDetails']}")
        return asked["result"].get("value")

    def wait(self, expression, what):
        """Waits until an expression holds."""
        deadline = time.monotonic() + PATIENCE
        # A page that is being loaded has no elements yet.
        while (holds := self.value(expression, may_fail=True)) is not True and time.monotonic() < deadline:
            time.sleep(0.05)
        expect(holds is True, f"page: {what}" if holds is True else f"page: {what}: {self.value('document.body.innerText')}")

    def press(self, key, code=None):
        """Presses a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=code or key, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=code or key)

    def type(self, text):
        """Types a text."""
        self.ask("Input.insertText", text=text)

    def shape(self, size, scheme):
        """Takes a size and a colour scheme."""
        width, height, mobile = SIZES[size]
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path):
        """Takes a picture of what is seen."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def faults(self):
        """What the browser complained about: exceptions, and what the policy has blocked."""
        found = []
        for message in self.browser.events:
            parameters = message.get("params", {})
            if message.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(parameters))
            entry = parameters.get("entry", {})
            if message.get("method") == "Log.entryAdded" and entry["level"] == "error" and entry["source"] != "network":
                found.append(entry["text"])
        return found


STATE = "document.getElementById('state').className"
ROWS = "document.querySelectorAll('#table tbody tr').length"


def cells(column):
    """The texts of a column, by its key."""
    place = f"[...document.querySelectorAll('#table th')].findIndex((cell) => cell.dataset.key === '{column}')"
    return f"[...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[{place}].textContent)"


def figure(name):
    """The texts of a figure: its value, and what is below it."""
    box = f"[...document.querySelectorAll('#figures div')].find((box) => box.firstChild.textContent === '{name}')"
    return f"[...{box}.querySelectorAll('span, small')].map((part) => part.textContent.trim())"


def clients(folder):
    """All of it."""
    chromium = chromium_here()
    if not chromium:
        return skipped("chromium is not installed, or python3 is older than 3.11: the page was not tried")
    pictures = PLACE / "page"
    pictures.mkdir(parents=True, exist_ok=True)
    server = Server(folder)
    server.start()
    browser = DevTools(chromium, "--proxy-server=direct://", patience=5 * PATIENCE)
    try:
        page = Page(browser)
        tunnels = load(server.ports["socks"])
        address = f"http://127.0.0.1:{server.ports['http']}/"
        with moving(tunnels):
            shapes(page, address, pictures)
        figures(page, server)
        tables(page)
        keys(page)
        choices(page)
        plots(page)
        expect(not page.faults(), f"page: nothing is blocked or thrown: {page.faults()}")
        loss(page, server)
        expect(not page.faults(), f"page: nor without the server: {page.faults()}")
        for client in tunnels:
            client.close()
    finally:
        browser.close()
        server.kill()
    print(f"pictures of the page: {pictures}")
    return None


def shapes(page, address, pictures):
    """It fits at each size, and has the colours that are wanted."""
    for size, (width, _, _) in SIZES.items():
        backs = set()
        for scheme in ("light", "dark"):
            page.shape(size, scheme)
            page.ask("Page.navigate", url=f"{address}#connections")
            page.wait(f"{STATE} === 'running' && {ROWS} === 40", f"{size}, {scheme}: it shows the connections")
            seen = page.value("document.documentElement.scrollWidth")
            expect(seen <= width, f"page: {size}, {scheme}: nothing is beyond the edge ({seen} of {width})")
            backs.add(page.value("getComputedStyle(document.body).backgroundColor"))
            page.picture(pictures / f"{size}-{scheme}.png")
        expect(len(backs) == 2, f"page: {size}: light and dark differ: {backs}")


def figures(page, server):
    """The figures are those of METP, once nothing moves any more."""
    metrics, info = server.ask("GET_METRICS ALL"), server.ask("INFO")
    refused = sum(int(metrics[f"REPLY_{code}"]) for code in range(1, 9))
    for name, place, expected in (
        ("Connections", 0, info["connections"]),
        ("New connections", 1, metrics["ACCEPTED"]),
        ("Requests refused", 0, str(refused)),
        ("Logins failed", 0, metrics["LOGINS_FAILED"]),
        ("Turned away", 0, metrics["REFUSED_LIMIT"]),
    ):
        page.wait(f"{figure(name)}[{place}] === '{expected}'", f"{name} is that of METP: {expected}")
    sizes = "(await import('./units.js')).size"
    total = page.value(f"(async () => {sizes}({metrics['BYTES_DOWN']}))()")
    page.wait(f"{figure('Down')}[1] === '{total}'", f"payload is that of METP: {total}")


def tables(page):
    """Names are text, columns sort, the filter filters, and CSV has all of it."""
    page.press("2")
    page.wait(f"{ROWS} === {len(USERS) + 1}", "users")
    names = page.value(cells("user"))
    expect(SCRIPT_NAME in names, f"page: a name that looks like a script is text: {names}")
    page.value("document.querySelector('th[data-key=up] button').click()")
    order = page.value("document.querySelector('th[data-key=up]').ariaSort")
    ups = page.value(f"Promise.all([import('./units.js')]).then(() => {cells('up')})")
    expect(order == "descending" and ups == sorted(ups, key=in_bytes, reverse=True), f"page: sorted by bytes: {ups}")
    page.value("document.querySelector('th[data-key=up] button').click()")
    ups = page.value(cells("up"))
    expect(ups == sorted(ups, key=in_bytes), f"page: and the other way: {ups}")
    page.press("4")
    page.wait(f"{cells('destination')}.includes('moc.\\\\xe2\\\\x80\\\\xaeelpmaxe:80')", "a bidi override is escaped")
    seen = page.value("document.body.textContent")
    expect("\u202e" not in seen, "page: and is nowhere as it was")
    page.press("5")
    page.wait(f"{cells('user')}.includes('=root') && {cells('count')}.includes('5')", "failed logins are counted")
    csv = page.value(
        "new Promise((done) => {"
        " const make = URL.createObjectURL;"
        " URL.createObjectURL = (blob) => { URL.createObjectURL = make; done(blob.text()); return make.call(URL, blob); };"
        " HTMLAnchorElement.prototype.click = () => {};"
        " document.getElementById('csv').click(); })"
    )
    lines = csv.split("\r\n")
    expect(lines[0] == "time,user,source,count,service", f"page: CSV has the keys: {lines[0]}")
    expect(lines[1].endswith(",'=root,127.0.0.1,5,socks"), f"page: CSV has no formula: {lines[1]}")


def in_bytes(text):
    """The number that a size means."""
    number, unit = text.split(" ")
    return float(number) * {"B": 1, "KiB": 1024, "MiB": 1024**2}[unit]


def keys(page):
    """All can be done by keyboard."""
    page.press("1")
    page.wait(f"{ROWS} === 40", "1: connections")
    page.press("/")
    page.wait("document.activeElement.id === 'filter'", "/: the filter")
    page.type("relay Script")
    page.wait(f"{ROWS} === 10 && {cells('user')}.every((name) => name === '{SCRIPT_NAME}')", "the filter filters")
    expect("10 of 40" in page.value("document.getElementById('caption').textContent"), "page: and says of how many")
    page.value("document.getElementById('filter').select()")
    page.press("Backspace")
    page.ask("Input.dispatchKeyEvent", type="keyDown", key="Backspace", windowsVirtualKeyCode=8)
    page.wait(f"{ROWS} === 40", "an empty filter shows all")
    page.press("Escape")
    page.press("3")
    page.press("ArrowRight")
    page.wait("document.activeElement.id === 'tab-requests'", "the arrows choose the next table")
    page.press("t")
    page.wait("document.querySelector('input[value=minutes]').checked", "t: 24 hours")
    page.press("t")


def choices(page):
    """Tables that are chosen one right after the other come at once, and one that does not come says so."""
    for key in "23123":
        page.press(key)
    page.wait(f"{cells('destination')}.length > 0 && !document.getElementById('csv').disabled", "the last choice is shown")
    page.ask("Network.enable")
    page.ask("Network.setBlockedURLs", urls=["*users.json"])
    page.press("2")
    page.wait("/^loading; /.test(document.getElementById('caption').textContent)", "a table that does not come says so")
    expect(page.value("document.getElementById('csv').disabled"), "page: and there is no CSV of it")
    page.ask("Network.setBlockedURLs", urls=[])
    page.wait(f"{ROWS} === {len(USERS) + 1}", "and comes later")


def plots(page):
    """The plots show what was before the page was opened, and can be read by keyboard."""
    page.ask("Page.reload")
    page.wait(f"{STATE} === 'running'", "it is opened again")
    page.value("document.querySelector('figure:nth-child(2) svg').focus()")
    page.press("Home")
    label = "document.querySelector('figure:nth-child(2) svg').getAttribute('aria-label')"
    page.wait(f"/^Connections [0-9:]{{8}}: open [0-9]+, /.test({label})", "a plot says what was at its beginning")
    page.press("End")
    page.wait(f"{label}.includes('open 40')", "and what is now")


def loss(page, server):
    """A server that is gone is seen to be gone, and one that is back to be back."""
    server.kill()
    page.wait(f"{STATE} === 'lost' && !document.getElementById('notice').hidden", "the server is lost")
    server.start()
    page.wait(f"{STATE} === 'running' && document.getElementById('notice').hidden", "the server is back")
    page.wait(f"{figure('Connections')}[0] === '0'", "and the figures are its own")
