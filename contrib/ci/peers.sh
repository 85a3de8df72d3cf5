#!/bin/sh
# Installs the programs that `make test-peers` tries, and what `make test-package` and `make test-image` take, on Debian
# or Ubuntu. What they come from beside these (PyPI, npm, crates.io) it fetches itself.
set -eu
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update
$sudo apt-get install -y --no-install-recommends \
    bind9-dnsutils buildah chromium curl dante-client debhelper default-jdk-headless git haproxy iproute2 links2 \
    lintian mmdebstrap netcat-openbsd npm openssl prometheus python3-pip socat systemd tnftp tor torsocks
