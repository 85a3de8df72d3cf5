"""A JDK without an Authenticator; git, apt, pip and npm over HTTP CONNECT."""

import hashlib
import json
import os
import shutil
import sys
import tarfile
import zipfile

from common import BODY, LOGIN, PLACE, certificate, expect, has, logged, origin, output, proxy, run, site, skipped

# For loopback, the properties socksProxyHost and socksProxyPort alone do nothing.
JAVA = """
import java.net.*;

class Fetch {
    public static void main(String[] words) throws Exception {
        var at = new InetSocketAddress("127.0.0.1", Integer.parseInt(words[0]));
        var connection = new URL(words[1]).openConnection(new Proxy(Proxy.Type.SOCKS, at));
        System.out.write(connection.getInputStream().readAllBytes());
        System.out.flush();
    }
}
"""


def clients(folder):
    """All of them."""
    with proxy(folder, "--trust", "127.0.0.0/8") as at:
        jdk(at, origin(site()))
    pem = certificate()
    if not pem:
        return skipped("there is no certificate: git, apt, pip and npm were not tried")
    files = site()
    port = origin(files, pem)
    with proxy(folder, "-u", ":".join(LOGIN), "--http-connect") as at:
        way = f"http://{':'.join(LOGIN)}@127.0.0.1:{at}"
        git(way, files, port)
        pip(way, files, port)
        npm(way, files, port)
        apt(way, files, port)
        logged(f"\t{LOGIN[0]}\tH\t127.0.0.1\t", "they came by HTTP CONNECT")
    return None


def jdk(at, port):
    """It offers 00 and 02, and answers 02 with the name of its user and an empty password."""
    if not has("java"):
        return
    source = PLACE / "Fetch.java"
    source.write_text(JAVA)
    said, _ = output("java", source, str(at), f"http://127.0.0.1:{port}/")
    expect(said.endswith(BODY), f"a JDK without an Authenticator: {said}")
    logged("\t-\tA\t127.0.0.1\t", "the JDK came as nobody in particular")


def git(way, files, port):
    """A clone over TLS."""
    if not has("git"):
        return
    work, bare, clone = PLACE / "work", files / "project.git", PLACE / "clone"
    for old in (work, bare, clone):
        shutil.rmtree(old, ignore_errors=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for command in [
        ["git", "init", "-q", work],
        ["git", "-C", work, *author, "commit", "-q", "--allow-empty", "-m", "empty"],
        ["git", "clone", "-q", "--bare", work, bare],
        ["git", "-C", bare, "update-server-info"],
    ]:
        run(*command, capture_output=True)
    words = ["-c", f"http.proxy={way}", "-c", "http.sslVerify=false", "clone", "-q"]
    said, code = output("git", *words, f"https://localhost:{port}/project.git", clone, env=plain())
    expect(code == 0 and (clone / ".git").exists(), f"git: {said}")


def plain():
    """The environment, without what would keep a client from using the proxy."""
    unwanted = ("no_proxy", "http_proxy", "https_proxy", "all_proxy")
    return {key: value for key, value in os.environ.items() if key.lower() not in unwanted}


def pip(way, files, port):
    """A wheel from an index."""
    index = files / "simple" / "peer-of-socks"
    index.mkdir(parents=True, exist_ok=True)
    wheel = index / "peer_of_socks-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = "peer_of_socks-1.dist-info"
        archive.writestr("peer_of_socks.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: peer-of-socks\nVersion: 1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (index / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    taken = PLACE / "taken"
    shutil.rmtree(taken, ignore_errors=True)
    words = ["download", "-q", "--no-deps", "--no-cache-dir", "--isolated", "-d", taken, "--proxy", way]
    words += ["--trusted-host", "localhost", "--index-url", f"https://localhost:{port}/simple", "peer-of-socks"]
    if run(sys.executable, "-m", "pip", "--version", capture_output=True).returncode:
        return skipped("pip is not installed")
    said, _ = output(sys.executable, "-m", "pip", *words, env=plain())
    expect((taken / wheel.name).exists(), f"pip: {said}")
    return None


def npm(way, files, port):
    """A package from a registry."""
    if not has("npm"):
        return
    folder = PLACE / "npm"
    folder.mkdir(exist_ok=True)
    (folder / "package.json").write_text(json.dumps({"name": "peer-of-socks", "version": "1.0.0"}))
    archive = files / "peer.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "package.json", "package/package.json")
    tarball = f"https://localhost:{port}/peer.tgz"
    shasum = hashlib.sha1(archive.read_bytes()).hexdigest()
    version = {"name": "peer-of-socks", "version": "1.0.0", "dist": {"tarball": tarball, "shasum": shasum}}
    about = {"name": "peer-of-socks", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (files / "peer-of-socks").write_text(json.dumps(about))
    target = PLACE / "npm-target"
    shutil.rmtree(target, ignore_errors=True)
    words = ["install", "--no-audit", "--no-fund", "--prefix", target, "--cache", PLACE / "npm-cache"]
    words += ["--prefer-online", "--strict-ssl=false", f"--https-proxy={way}", f"--proxy={way}", "--noproxy="]
    words += [f"--registry=https://localhost:{port}/", "peer-of-socks"]
    said, _ = output("npm", *words, env=plain())
    expect((target / "node_modules" / "peer-of-socks").exists(), f"npm: {said}")


def apt(way, files, port):
    """The index of a repository."""
    if not has("apt-get"):
        return
    repository = files / "repository"
    repository.mkdir(exist_ok=True)
    package = "Package: peer-of-socks\nVersion: 1\nArchitecture: all\nFilename: ./none.deb\n"
    (repository / "Packages").write_text(package)
    state = PLACE / "apt"
    shutil.rmtree(state, ignore_errors=True)
    places = ["lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d", "etc/trusted.gpg.d"]
    for place in places:
        (state / place).mkdir(parents=True)
    sources = state / "sources.list"
    sources.write_text(f"deb [trusted=yes] https://localhost:{port}/repository ./\n")
    options = {
        "Acquire::https::Proxy": way, "Acquire::https::Verify-Peer": "false", "Acquire::https::Verify-Host": "false",
        "Dir::State": state, "Dir::State::lists": state / "lists", "Dir::Cache": state / "cache",
        "Dir::Etc": state / "etc", "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "-",
        "APT::Sandbox::User": "", "Acquire::Languages": "none",
    }
    (state / "status").write_text("")
    options["Dir::State::status"] = state / "status"
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    said, code = output("apt-get", *words, "update", env=plain())
    expect(code == 0 and "./ Packages [" in said, f"apt: {said}")
