#!/usr/bin/env bash
# make test-package: installs the package in a throwaway Debian, runs the server as its unit does, changes its
# configuration, upgrades, removes and purges it. Each step prints what was seen; the first that fails ends it with 1.
#
#   run.sh DEB            builds the root, then calls itself in a network of its own, as
#   run.sh DEB FOLDER     which has it as FOLDER/root
set -euo pipefail

DEB=$(realpath "$1")
SUITE=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
HERE=$(dirname "$(realpath "$0")")

skip() {
	echo "SKIPPED: $*; the package was not tested" >&2
	exit 0
}

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

step() { printf '\n%s\n' "== $*"; }
saw() { printf '   %s\n' "$*"; }

if [ $# = 1 ]; then
	for tool in dpkg-deb unshare setpriv curl python3 ip; do
		command -v "$tool" >/dev/null || skip "$tool is not installed"
	done
	[ "$(id -u)" = 0 ] || skip "it takes root"
	unshare --net --mount --pid --fork true 2>/dev/null || skip "namespaces cannot be made here"

	if command -v lintian >/dev/null; then
		step "lintian"
		lintian --allow-root --fail-on error,warning "$DEB" || fail "lintian"
		saw "no error, no warning"
	fi

	FOLDER=$(mktemp -d)
	trap 'rm -rf --one-file-system "$FOLDER"' EXIT
	step "a throwaway root: Debian $SUITE"
	if command -v mmdebstrap >/dev/null; then
		mmdebstrap --quiet --variant=apt --include=systemd,procps "$SUITE" "$FOLDER/root" >"$FOLDER/log" 2>&1
	elif command -v debootstrap >/dev/null; then
		debootstrap --variant=minbase --include=systemd,procps "$SUITE" "$FOLDER/root" >"$FOLDER/log" 2>&1
	else
		skip "neither mmdebstrap nor debootstrap is installed"
	fi || skip "no root can be made: $(tail -n 1 "$FOLDER/log")"
	saw "$(du -sh "$FOLDER/root" | cut -f 1), $(find "$FOLDER/root/var/lib/dpkg/info" -name '*.list' | wc -l) packages"
	unshare --net --mount-proc --pid --fork --kill-child "$HERE/run.sh" "$DEB" "$FOLDER"
	exit
fi

FOLDER=$2
ROOT=$FOLDER/root
# Of the range that DynamicUser= takes.
RUNS_AS=64999
cd "$FOLDER"
ip link set lo up
ip address add 192.0.2.1/32 dev lo
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"

in_root() { chroot "$ROOT" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

# Waits for a line in a file. Usage: await FILE PATTERN
await() {
	local tries
	for ((tries = 0; tries < 200; tries++)); do
		grep -q -- "$2" "$1" 2>/dev/null && return
		sleep 0.05
	done
	cat "$1" >&2
	fail "$1 has no line with '$2'"
}

# What is there, without the lists of dpkg and apt and what the tests put there themselves.
listing() {
	(cd "$ROOT" && find . \( -path ./proc -o -path ./dev -o -path ./run -o -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache \
		-o -path ./var/log/apt -o -path ./var/log/dpkg.log -o -path ./tmp -o -path ./systemctl.log \) -prune -o -print | sort)
}

# dpkg installs the package with what systemctl is asked for in systemctl.log.
install_deb() {
	cp "$1" "$ROOT/tmp/socks5d.deb"
	: >"$ROOT/systemctl.log"
	in_root apt-get install -y -q -o Dpkg::Options::=--force-confold /tmp/socks5d.deb >apt.log 2>&1 || {
		cat apt.log >&2
		fail "apt-get install"
	}
	rm "$ROOT/tmp/socks5d.deb"
	saw "$(in_root dpkg-query -W socks5d | tr '\t' ' '); systemctl:$(sed 's/^/ [/; s/$/]/' "$ROOT/systemctl.log" | tr -d '\n')"
}

# What is not a line of the unit stays as it is in this script: the user, and directories that are read-only.
start() {
	local unit=$ROOT/lib/systemd/system/socks5d.service command kind where
	local -a variables=(STATE_DIRECTORY=/var/lib/socks5d LOGS_DIRECTORY=/var/log/socks5d)
	command=$(sed -n 's/^ExecStart=//p' "$unit" | sed -e 's|%S|/var/lib|g' -e 's|%L|/var/log|g' -e 's|%t|/run|g')
	while read -r line; do
		variables+=("${line//%d//run/credentials/socks5d.service}")
	done < <(sed -n 's/^Environment=//p' "$unit")
	! grep -q '^LoadCredential=' "$unit" || variables+=(CREDENTIALS_DIRECTORY=/run/credentials/socks5d.service)
	local file
	file=$(sed -n 's/^EnvironmentFile=-\?//p' "$unit")
	[ -z "$file" ] || [ ! -e "$ROOT$file" ] || mapfile -t -O "${#variables[@]}" variables <"$ROOT$file"
	for where in lib log; do
		install -d -m 700 -o "$RUNS_AS" -g "$RUNS_AS" "$ROOT/var/$where/private/socks5d"
		ln -sfn private/socks5d "$ROOT/var/$where/socks5d"
		chmod 755 "$ROOT/var/$where/private"
	done
	: >journal
	unshare --mount sh -c '
		root=$1; shift
		mount --bind "$root" "$root" && mount --bind "$root/var/lib/private/socks5d" "$root/var/lib/private/socks5d" &&
		mount --bind "$root/var/log/private/socks5d" "$root/var/log/private/socks5d" &&
		mount -o remount,bind,ro "$root" && exec chroot "$root" "$@"' sh "$ROOT" \
		setpriv --reuid "$RUNS_AS" --regid "$RUNS_AS" --clear-groups --no-new-privs --bounding-set -all --inh-caps -all \
		env -i PATH=/usr/bin:/bin "${variables[@]}" $command >>journal 2>&1 &
	SERVER=$!
	await journal 'listening: service=metp'
	await journal 'listening: service=socks'
	saw "$command"
	saw "as $(awk '/^(Uid|NoNewPrivs|CapBnd)/ { printf "%s %s  ", $1, $2 }' "/proc/$SERVER/status")"
}

stop() {
	kill -TERM "$SERVER"
	local code=0
	wait "$SERVER" || code=$?
	[ "$code" = 0 ] || fail "the server has ended with $code"
}

# The exit code of curl and the status of HTTP, through the proxy.
fetch() {
	local code=0 status
	status=$(curl -sS -m 20 -o /dev/null -w '%{http_code}' -x "socks5h://$1@127.0.0.1:1080" http://127.0.0.1:8000/ 2>curl.log) || code=$?
	echo "$code $status"
}

client() { "$ROOT/usr/bin/client" -q "$@"; }

mv "$ROOT/usr/bin/systemctl" "$ROOT/usr/bin/systemctl.real"
cat >"$ROOT/usr/bin/systemctl" <<'END'
#!/bin/sh
# Says what it was asked for. Units are enabled and disabled without a running systemd, but not started.
echo "$*" >>/systemctl.log
case $* in
*--root=*) exec systemctl.real "$@" ;;
*is-enabled*) exec systemctl.real --root=/ is-enabled socks5d.service ;;
esac
END
chmod 755 "$ROOT/usr/bin/systemctl"
install -d "$ROOT/run/systemd/system" "$ROOT/etc/systemd/system/multi-user.target.wants"
install -d -m 700 "$ROOT/var/lib/private" "$ROOT/var/log/private"
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
chmod 755 "$ROOT/usr/sbin/policy-rc.d"
: >"$ROOT/systemctl.log"
listing >before

step "install, where policy-rc.d forbids to start services"
install_deb "$DEB"
! grep -E '(^| )(re)?start( |$)' "$ROOT/systemctl.log" || fail "a service was started"
[ -L "$ROOT/etc/systemd/system/multi-user.target.wants/socks5d.service" ] || fail "the unit is not enabled"
[ ! -e "$ROOT/etc/systemd/system/sockets.target.wants" ] || fail "a socket is enabled"
saw "enabled: $(readlink "$ROOT/etc/systemd/system/multi-user.target.wants/socks5d.service")"
for manual in man1/client.1 man5/socks5d.conf.5 man7/metp.7 man8/socks5d.8; do
	gzip -t "$ROOT/usr/share/man/$manual.gz" || fail "no manual $manual"
done
in_root systemd-analyze verify --man=no socks5d.service >verify.log 2>&1 || true
! grep socks5d verify.log || fail "systemd-analyze verify"
saw "systemd-analyze verify: no complaint about the unit"

step "a first start, without an account"
start
saw "$(grep 'no account' journal)"
saw "as somebody: curl $(fetch somebody:secret)"
[ "$(fetch somebody:secret)" = "97 000" ] || fail "somebody was let in"
! curl -s -m 5 -x socks5h://192.0.2.1:1080 http://127.0.0.1:8000/ 2>/dev/null || fail "it listens elsewhere"
saw "listens on: $(ss -Hltn | awk '{ print $4 }' | sort | tr '\n' ' ')"
[ "$(ss -Hltn | awk '{ print $4 }' | sort | tr '\n' ' ')" = "127.0.0.1:1080 127.0.0.1:8080 " ] || fail "other ports"

step "an administrator in the users file, an account by client, a request by curl"
users=$ROOT/var/lib/private/socks5d/users
printf 'admin:%s:role=admin\n' "$(echo 1234 | "$ROOT/usr/bin/socks5d" --hash-password)" >>"$users"
chmod 600 "$users"
chown --reference="$ROOT/var/lib/private/socks5d" "$users"
kill -HUP "$SERVER"
await journal 'reloaded: accounts=1'
client -u admin:1234 -a alice wonderland -l | sed 's/^/   /'
grep -q '^alice:\$argon2id' "$users" || fail "alice is not in the users file"
python3 -m http.server 8000 --bind 127.0.0.1 >origin.log 2>&1 &
until curl -s -o /dev/null http://127.0.0.1:8000/; do sleep 0.1; done
saw "to loopback: curl $(fetch alice:wonderland) (local-for nobody)"
[ "$(fetch alice:wonderland)" = "97 000" ] || fail "loopback is open"

step "the configuration is changed and read again"
sed -i -e 's/^local-for .*/local-for loopback/' -e 's/^#idle-timeout .*/idle-timeout 7m/' "$ROOT/etc/socks5d/socks5d.conf"
in_root socks5d --config /etc/socks5d/socks5d.conf --check-config || fail "the configuration is wrong"
kill -HUP "$SERVER"
await journal 'configuration: idle-timeout is 420 now'
grep 'configuration: ' journal | sed 's/^/   /'
await journal 'configuration: local-for is loopback now'
saw "to loopback: curl $(fetch alice:wonderland)"
[ "$(fetch alice:wonderland)" = "0 200" ] || fail "no answer through the proxy"
log=$ROOT/var/log/private/socks5d/access.log
await "$log" 'alice.*finished'
saw "$(tail -n 1 "$log" | tr '\t' ' ')"

step "an upgrade, which has another socks5d.conf"
dpkg-deb -R "$DEB" newer
sed -i 's/^Version: .*/&.1~test/' newer/DEBIAN/control
echo '# newer' >>newer/etc/socks5d/socks5d.conf
(cd newer && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group -Zgzip -b newer newer.deb >/dev/null
rm "$ROOT/usr/sbin/policy-rc.d"
sum=$(sha256sum <"$ROOT/etc/socks5d/socks5d.conf")
install_deb newer.deb
[ "$sum" = "$(sha256sum <"$ROOT/etc/socks5d/socks5d.conf")" ] || fail "the configuration was replaced"
saw "kept: $(grep -c . "$ROOT/etc/socks5d/socks5d.conf") lines; beside it: $(ls "$ROOT/etc/socks5d" | tr '\n' ' ')"
grep -q 'restart socks5d.service' "$ROOT/systemctl.log" || fail "the service was not restarted"
stop
saw "SIGTERM: the old server has ended with 0"
start
saw "alice, after the upgrade: curl $(fetch alice:wonderland)"
[ "$(fetch alice:wonderland)" = "0 200" ] || fail "no answer after the upgrade"
stop

step "remove"
sockets=$(cd "$ROOT/lib/systemd/system" && ls | grep '^socks5d-.*\.socket$' || true)
: >"$ROOT/systemctl.log"
in_root apt-get remove -y -q socks5d >apt.log 2>&1 || fail "apt-get remove"
saw "systemctl:$(sed 's/^/ [/; s/$/]/' "$ROOT/systemctl.log" | tr -d '\n')"
saw "left: $(cd "$ROOT" && find ./etc/socks5d ./var/lib/private/socks5d ./var/log/private/socks5d -type f | tr '\n' ' ')"
for unit in $sockets socks5d.service; do
	grep -q "^stop $unit" "$ROOT/systemctl.log" || fail "$unit was not stopped"
done
[ -e "$ROOT/etc/socks5d/socks5d.conf" ] && [ -e "$users" ] || fail "configuration or accounts are gone"
[ ! -e "$ROOT/usr/bin/socks5d" ] || fail "the program is there"

step "install again, where services may be started; then purge"
install_deb newer.deb
grep -q 'start socks5d.service' "$ROOT/systemctl.log" || fail "the service was not started"
[ "$sum" = "$(sha256sum <"$ROOT/etc/socks5d/socks5d.conf")" ] || fail "the configuration was replaced"
in_root dpkg --purge socks5d >apt.log 2>&1 || {
	cat apt.log >&2
	fail "dpkg --purge"
}
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
listing >after
diff before after >difference || {
	cat difference
	fail "purge leaves something, or takes too much"
}
saw "nothing is left: $(wc -l <after) paths, as before the installation"
