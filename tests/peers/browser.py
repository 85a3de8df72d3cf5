"""Chromium, headless: through a trusted network, and through HTTP CONNECT with a login.

It asks for a login as it asks people, and is given it over the DevTools protocol, through a pair of pipes.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

from common import BODY, LOGIN, certificate, expect, logged, origin, output, proxy, site, skipped

PATIENCE = 60
# Moves the descriptors to 3 and 4, by way of others, since they may be each other's.
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def clients(folder):
    """All ways."""
    chromium = chromium_here()
    if not chromium:
        return skipped("chromium is not installed, or python3 is older than 3.11")
    pem = certificate()
    if not pem:
        return skipped("there is no certificate: chromium was not tried")
    secure, plain = origin(site(), pem), origin(site())
    with proxy(folder, "--trust", "127.0.0.0/8", "--http-connect") as at:
        for scheme in ("socks5", "socks4", "http"):
            way = f"--proxy-server={scheme}://127.0.0.1:{at}"
            said = dump(chromium, way, f"https://127.0.0.1:{secure}/")
            expect(BODY.strip() in said, f"chromium: {scheme}, https, no login: {said}")
        said = dump(chromium, f"--proxy-server=socks5://127.0.0.1:{at}", f"http://localhost:{plain}/")
        expect(BODY.strip() in said, f"chromium: socks5, http, by name: {said}")
        said = dump(chromium, f"--proxy-server=http://127.0.0.1:{at}", f"http://127.0.0.1:{plain}/")
        expect("HTTP CONNECT" in said, f"chromium: a plain page over HTTP is told what this is: {said}")
    with proxy(folder, "-u", ":".join(LOGIN), "--http-connect") as at:
        said = with_login(chromium, f"--proxy-server=http://127.0.0.1:{at}", f"https://localhost:{secure}/")
        expect(BODY.strip() in said, f"chromium: http, https, with a login: {said}")
        logged(f"\t{LOGIN[0]}\tH\t127.0.0.1\t", "chromium has logged in")
    return None


def chromium_here():
    """The name of the browser; `None` if there is none, or this Python cannot drive it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((name for name in names if shutil.which(name) and sys.version_info >= (3, 11)), None)


def command(chromium, profile, *words):
    """Chromium, which uses the proxy for loopback too, and needs no sandbox and no network for this.

    What it asks of hosts of its vendor is at the two usual ports: that is not left to the proxy, and no name is found
    for it here.
    """
    return [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
        "--ignore-certificate-errors", "--proxy-bypass-list=<-loopback>;*:80;*:443",
        "--host-resolver-rules=MAP * ~NOTFOUND,EXCLUDE 127.0.0.1", f"--user-data-dir={profile}", *words,
    ]


def dump(chromium, way, url):
    """The page as text."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        return output(*command(chromium, profile, way, "--dump-dom", url), timeout=PATIENCE)[0]


class DevTools:
    """A browser that is driven through the descriptors 3 and 4: messages of JSON, each with a NUL behind it."""

    def __init__(self, chromium, way, patience=PATIENCE):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()
        words = command(chromium, self.profile.name, way, "--remote-debugging-pipe")
        launch = [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out), *words]
        self.process = subprocess.Popen(
            launch, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.received = b""
        self.number = 0
        self.deadline = time.monotonic() + patience
        # What has come beside the results.
        self.events = []

    def send(self, method, session=None, **parameters):
        """Sends a command. Returns its number."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        return self.number

    def receive(self):
        """The next message."""
        while b"\0" not in self.received:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.back], [], [], left)[0]:
                raise TimeoutError("chromium says nothing")
            more = os.read(self.back, 65536)
            if not more:
                raise EOFError("chromium has ended")
            self.received += more
        message, self.received = self.received.split(b"\0", 1)
        return json.loads(message)

    def ask(self, method, session=None, **parameters):
        """Sends a command and waits for its result."""
        number = self.send(method, session, **parameters)
        while True:
            message = self.receive()
            if message.get("id") == number:
                return message.get("result", {})
            self.events.append(message)

    def close(self):
        """Ends the browser."""
        self.process.terminate()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)
        self.profile.cleanup()


def with_login(chromium, way, url):
    """The text of a page; the proxy's question for a login is answered."""
    browser = DevTools(chromium, way)
    try:
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.ask("Fetch.enable", session, handleAuthRequests=True)
        browser.ask("Page.enable", session)
        browser.send("Page.navigate", session, url=url)
        while True:
            message = browser.receive()
            event, parameters = message.get("method"), message.get("params", {})
            if event == "Fetch.requestPaused":
                browser.send("Fetch.continueRequest", session, requestId=parameters["requestId"])
            elif event == "Fetch.authRequired":
                answer = {"response": "ProvideCredentials", "username": LOGIN[0], "password": LOGIN[1]}
                browser.send(
                    "Fetch.continueWithAuth", session, requestId=parameters["requestId"], authChallengeResponse=answer,
                )
            elif event == "Page.loadEventFired":
                break
        text = browser.ask("Runtime.evaluate", session, expression="document.body.innerText")
        return text["result"].get("value", "")
    except (TimeoutError, EOFError, KeyError) as error:
        return repr(error)
    finally:
        browser.close()
