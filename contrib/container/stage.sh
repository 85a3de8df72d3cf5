#!/bin/sh
# Puts what the image of a container holds into a folder: programs, the libraries that they are linked with, and the
# files that these read. Usage: stage.sh FOLDER-OF-PROGRAMS FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
programs=$1
stage=$2
rm -rf "$stage"
install -D -m 755 -t "$stage/usr/bin" "$programs/socks5d" "$programs/client"
install -D -m 644 -t "$stage/etc/socks5d" "$here/socks5d.conf"
install -D -m 644 "$here/../../LICENSE" "$stage/usr/share/doc/socks5d/LICENSE"
"$here/../notices.py" >"$stage/usr/share/doc/socks5d/THIRD-PARTY"

# The libraries, at the paths where the loader looks for them.
libraries=$(ldd "$programs/socks5d" "$programs/client" | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' | sort -u)
# Names are looked up by parts of the C library that it loads; since glibc 2.34 they are in libc.so.6 itself.
folder=$(dirname "$(echo "$libraries" | grep '/libc\.so')")
for name in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
	[ ! -e "$folder/$name" ] || libraries="$libraries $folder/$name"
done
for library in $libraries; do
	install -D -m 755 "$library" "$stage$library"
done
echo 'hosts: files dns' >"$stage/etc/nsswitch.conf"

# The user, by number and by name, and what it may write.
echo 'socks5d:x:65532:65532:socks5d:/var/lib/socks5d:/usr/sbin/nologin' >"$stage/etc/passwd"
echo 'socks5d:x:65532:' >"$stage/etc/group"
install -d -m 700 "$stage/var/lib/socks5d"
