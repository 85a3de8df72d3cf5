"""contrib/kubernetes against the schemas of Kubernetes, by kubernetes-validate of PyPI."""

import os
import shutil
import sys

from common import PLACE, ROOT, expect, output, run, skipped

# The oldest version that the files are for, and a newer one.
VERSIONS = ("1.29", "1.33")


def manifests():
    """Each file, strictly: an unknown key is an error."""
    place = PLACE / "kubernetes"
    install = [sys.executable, "-m", "pip", "install", "-q", "--retries", "1", "--timeout", "10", "--target", place]
    if not place.exists() and run(*install, "kubernetes-validate").returncode:
        shutil.rmtree(place, ignore_errors=True)
        return skipped("kubernetes-validate cannot be installed")
    files = sorted((ROOT / "contrib" / "kubernetes").glob("*.yaml"))
    expect(len(files) == 2, "kubernetes: there are two files")
    environment = {**os.environ, "PYTHONPATH": str(place)}
    for version in VERSIONS:
        command = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version, *files]
        said, code = output(*command, env=environment)
        expect(code == 0, f"kubernetes {version}: the manifests are valid\n{said}")
