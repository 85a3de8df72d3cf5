"""The suite of python-socks, with socks5d as its proxies."""

import os
import pathlib
import re
import sys
import tarfile

from common import PLACE, expect, run, skipped

VERSION = "3.2.1"
PACKAGES = ["anyio", "trio", "pytest", "pytest-asyncio", "pytest-trio", "tiny-proxy", "trustme"]
PACKAGES += ["yarl", "starlette", "uvicorn"]
# It wants a proxy that takes more than a millisecond to open a tunnel, and may or may not find one.
SLOW = "::test_socks5_proxy_with_connect_timeout"


def python_socks(folder):
    """Its cases of SOCKS4, SOCKS5 and HTTP, and all others."""
    place = PLACE / "python-socks"
    suite, environment = place / f"python_socks-{VERSION}", place / "packages"
    if sys.version_info < (3, 12) and not hasattr(tarfile, "data_filter"):
        return skipped("python3 is too old for the suite of python-socks")
    if run("unshare", "-rm", "true", capture_output=True).returncode:
        return skipped("there are no namespaces for the names of python-socks")
    place.mkdir(exist_ok=True)
    pip = [sys.executable, "-m", "pip", "-q", "--retries", "1", "--timeout", "10"]
    if not suite.exists():
        source = ["--no-binary", ":all:", "--no-deps", "-d", place, f"python-socks=={VERSION}"]
        if run(*pip, "download", *source, capture_output=True).returncode:
            return skipped("python-socks cannot be had")
        with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
            archive.extractall(place, filter="data")
    install = [*pip, "install", "--target", environment, *PACKAGES]
    if not environment.exists() and run(*install, capture_output=True).returncode:
        return skipped("what python-socks is tested with cannot be had")
    here = pathlib.Path(__file__).resolve().parent
    variables = {
        **os.environ, "SOCKS5D": str(folder / "socks5d"),
        "PYTHONPATH": os.pathsep.join(map(str, (here, environment))), "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "socks5d_plugin", "-p", "no:cacheprovider", "tests"]
    done = run(*command, cwd=suite, env=variables, capture_output=True, text=True, timeout=120)
    said = done.stdout or ""
    passed = re.search(r"(\d+) passed", said)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    good = passed and int(passed.group(1)) > 380 and all(case.endswith(SLOW) for case in failed)
    counts = f"{passed.group(1) if passed else 0} passed, {len(failed)} want a slow proxy"
    expect(good, f"python-socks: {counts}\n{said}{done.stderr}")
    return None
