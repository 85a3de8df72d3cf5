#!/bin/sh
# Installs the programs that `make test-peers` tries, on Debian or Ubuntu. What they come from beside these (PyPI, npm,
# crates.io) it fetches itself.
set -eu
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update
$sudo apt-get install -y --no-install-recommends \
    bind9-dnsutils chromium curl dante-client default-jdk-headless git haproxy links2 netcat-openbsd npm openssl \
    prometheus python3-pip socat tnftp tor torsocks
