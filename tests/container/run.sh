#!/usr/bin/env bash
# make test-image: runs the image as a runtime would: as process 1, not as root, without capabilities, with a root that is
# read-only, without /etc/hosts and /etc/resolv.conf. Each step prints what was seen; the first that fails ends it with 1.
#
#   run.sh IMAGE            mounts it, then calls itself in a network of its own, as
#   run.sh IMAGE FOLDER     which has the mounted image at FOLDER/root, and its configuration in FOLDER/config
set -euo pipefail

IMAGE=$1
HERE=$(dirname "$(realpath "$0")")

skip() {
	echo "SKIPPED: $*; the image was not tested" >&2
	exit 0
}

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

step() { printf '\n%s\n' "== $*"; }
saw() { printf '   %s\n' "$*"; }

if [ $# = 1 ]; then
	for tool in buildah unshare nsenter setpriv curl python3 ip; do
		command -v "$tool" >/dev/null || skip "$tool is not installed"
	done
	[ "$(id -u)" = 0 ] || skip "it takes root"
	unshare --net --mount --pid --fork true 2>/dev/null || skip "namespaces cannot be made here"
	FOLDER=$(mktemp -d)
	container=$(buildah from --pull-never "$IMAGE")
	trap 'buildah rm "$container" >/dev/null; rm -rf --one-file-system "$FOLDER"' EXIT
	buildah inspect --type image "$IMAGE" >"$FOLDER/config"
	ln -s "$(buildah mount "$container")" "$FOLDER/root"
	unshare --net --mount-proc --pid --fork --kill-child "$HERE/run.sh" "$IMAGE" "$FOLDER"
	exit
fi

cd "$2"
ROOT=$(realpath root)

# A list of words of the image's configuration, one in a line.
configured() {
	python3 -c 'import json, sys
value = json.load(open("config"))["Docker"]["config"]
for key in sys.argv[1:]:
    value = value[key]
print("\n".join(value) if isinstance(value, list) else value)' "$@"
}

# Waits until a command succeeds. Usage: await COMMAND...
await() {
	local tries
	for ((tries = 0; tries < 200; tries++)); do
		! "$@" 2>/dev/null || return 0
		sleep 0.05
	done
	cat log >&2
	fail "waited in vain for: $*"
}

mapfile -t ENTRYPOINT < <(configured Entrypoint)
mapfile -t VARIABLES < <(configured Env)
mapfile -t HEALTH < <(configured Healthcheck Test)
VOLUME=$(configured Volumes | sed -n "s/^{'\(.*\)': {}}$/\1/p")
NUMBER=$(configured User)
NUMBER=${NUMBER%%:*}

step "the image"
saw "$(cd "$ROOT" && find . -type f | wc -l) files, $(du -sh "$ROOT" | cut -f 1): $(cd "$ROOT" && find . -type f | tr '\n' ' ')"
[ "$NUMBER" = 65532 ] || fail "it runs as $NUMBER"
[ "${HEALTH[0]}" = CMD ] || fail "no health check"
[ -z "$(find "$ROOT" -perm /6000)" ] || fail "a file has setuid"
[ -z "$(find "$ROOT" ! -uid 0 ! -path "$ROOT$VOLUME")" ] || fail "a file is not of root"
for name in hosts resolv.conf; do
	[ ! -e "$ROOT/etc/$name" ] || rm "$ROOT/etc/$name"
done
saw "no /etc/hosts, no /etc/resolv.conf; user $NUMBER; volume $VOLUME"

# What a runtime does, before the root becomes read-only.
mkdir -p "$ROOT/proc" "$ROOT/run/secrets"
install -m 400 -o "$NUMBER" /dev/stdin "$ROOT/run/secrets/superuser" <<<admin:1234
mount --bind "$ROOT" "$ROOT"
mount -t tmpfs -o "mode=700,uid=$NUMBER,gid=$NUMBER" tmpfs "$ROOT$VOLUME"
mount -o remount,bind,ro "$ROOT"
! touch "$ROOT/etc/x" 2>/dev/null || fail "the root can be written"
ip link set lo up

start() {
	env -i "${VARIABLES[@]}" setpriv --no-new-privs unshare --pid --fork --kill-child --mount-proc=/proc \
		"--root=$ROOT" --wd=/ --setgid="$NUMBER" --setuid="$NUMBER" "${ENTRYPOINT[@]}" "$@" >log 2>&1 &
	WAITER=$!
	await grep -q 'listening: service=metp' log
	SERVER=$(pgrep -P "$WAITER")
	saw "${ENTRYPOINT[*]} $*: $(awk '/^(Uid|CapEff|NoNewPrivs|NSpid)/ { printf "%s %s  ", $1, $NF }' "/proc/$SERVER/status")"
	grep -q '^CapEff:.*\b0000000000000000$' "/proc/$SERVER/status" || fail "it has capabilities"
	grep -q '^NSpid:.*\b1$' "/proc/$SERVER/status" || fail "it is not process 1"
}

# As docker exec.
inside() {
	env -i "${VARIABLES[@]}" nsenter --target "$SERVER" --pid --mount --net --root --wd=/ --setuid "$NUMBER" --setgid "$NUMBER" "$@"
}

fetch() { curl -sS -m 20 -x socks5h://alice:wonderland@127.0.0.1:1080 "$@" 2>&1 || true; }

cat >origin.py <<'END'
"""An origin that answers /slow when the file "go" is there."""
import http.server
import pathlib
import time


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            pathlib.Path("asked").touch()
            while not pathlib.Path("go").exists():
                time.sleep(0.02)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"here")


http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
END
python3 origin.py >origin.log 2>&1 &
await curl -s -o origin.out http://127.0.0.1:8000/

step "started with the superuser in a file"
start
inside "${HEALTH[@]:1}" >health || fail "the health check: $?"
saw "${HEALTH[*]:1}: $(head -n 1 health)"
inside /usr/bin/client -q -a alice wonderland -l | sed 's/^/   /'
grep -q '^alice:\$argon2id' "$ROOT$VOLUME/users" || fail "alice is not in the users file"
said=$(fetch http://localhost:8000/)
saw "to loopback: $said"
[[ $said == *"(2)"* ]] || fail "loopback is open"

step "stopped, and started again with options of its own"
kill -TERM "$SERVER"
wait "$WAITER" || fail "it has ended with $?"
start --local-for loopback --grace 20
said=$(fetch http://localhost:8000/)
saw "localhost, without /etc/hosts: $said"
[ "$said" = here ] || fail "localhost is not loopback"
said=$(fetch http://example.com/)
saw "a name, without /etc/resolv.conf: $said"
[[ $said == *"(4)"* ]] || fail "a name is looked up"
for _ in 1 2 3; do
	inside "${HEALTH[@]:1}" >health
done
processes=$(awk '/^(Name|State)/ { printf "%s ", $2 } ' "/proc/$SERVER/root/proc/"[0-9]*/status)
saw "processes: $processes"
[ "$processes" = "socks5d S " ] || fail "there are others, or zombies"

step "SIGTERM while a tunnel is open"
fetch http://localhost:8000/slow >slow &
FETCH=$!
await test -e asked
kill -TERM "$SERVER"
await grep -q 'closing down' log
touch go
wait "$FETCH"
[ "$(cat slow)" = here ] || fail "the tunnel was cut: $(cat slow)"
wait "$WAITER" || fail "it has ended with $?"
saw "the tunnel has ended with its answer, the server with 0"
saw "$(tail -n 1 log)"
