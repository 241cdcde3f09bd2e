#!/bin/sh
# The main job in one minute: pull an ostree repository over HTTP into a composefs repository, look at it, mount it.
# `make demo` runs this with cfsctl in PATH.  Everything happens below one temporary directory, which goes away.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
export XDG_CACHE_HOME="$work/cache"

say() { printf '\n# %s\n' "$*"; }
show() { # print a command, then run it
    printf '$'
    printf ' %s' "$@" | sed "s|$work/||g"
    printf '\n'
    "$@"
}

say "A made-up system, committed and exported as an ostree repository, which is served on loopback"
umask 022
tree=$work/system
mkdir -p "$tree/etc" "$tree/usr/bin" "$tree/usr/lib" "$tree/usr/share/doc" "$tree/var"
printf 'NAME=Demo\nVERSION=1\n' >"$tree/etc/os-release"
: >"$tree/etc/empty"
printf '#!/bin/sh\necho Hello from an image\n' >"$tree/usr/bin/hello"
chmod 755 "$tree/usr/bin/hello"
ln -s hello "$tree/usr/bin/hi"
for number in 0 1 2 3 4 5 6 7 8 9 10 11; do
    { head -c 200000 /dev/urandom; seq "$number" 70000; } >"$tree/usr/lib/lib$number.so"
done
for number in $(seq 40); do
    seq 1 "$((number * 60))" >"$tree/usr/share/doc/chapter $number.txt"
done
echo "a name that needs escaping" >"$tree/usr/share/grüße=\\"
seq 100 >"$tree/usr/share/twin"
cp "$tree/usr/share/twin" "$tree/usr/share/twin 2"
show cfsctl init --insecure "$work/maker"
show cfsctl --repo "$work/maker" ostree commit --tree="dir=$tree" --branch=demo/main --owner-uid=0 --owner-gid=0 \
    --subject="A system made up for the demo" --add-metadata-string=version=1.0
show cfsctl --repo "$work/maker" ostree export demo/main "$work/ostree"
python3 -u -m http.server --protocol HTTP/1.1 --bind 127.0.0.1 --directory "$work/ostree" 0 \
    >"$work/server.out" 2>/dev/null &
server=$!
until grep -q ' port ' "$work/server.out" 2>/dev/null; do
    kill -0 "$server" # the script ends here if the server could not start
    sleep 0.05
done
url=http://127.0.0.1:$(sed -n 's/.* port \([0-9]*\).*/\1/p' "$work/server.out")

say "A composefs repository (without fs-verity, so that it works on any file system), and the first pull"
show cfsctl init --insecure "$work/repo"
# Bars on a terminal; elsewhere nothing is shown unless asked for.
[ -t 2 ] && progress=auto || progress=plain
show cfsctl --repo "$work/repo" --progress "$progress" ostree pull "$url" demo/main

say "Again: everything is there already"
show cfsctl --repo "$work/repo" ostree pull "$url" demo/main

say "What is in it"
show cfsctl --repo "$work/repo" ostree images
show cfsctl --repo "$work/repo" ostree inspect demo/main
echo "(of the dump, the root, usr/bin and one odd name, cut at 150 characters)"
show cfsctl --repo "$work/repo" ostree dump demo/main >"$work/dump"
sed -n '1,2p; /^\/usr\/bin/p; /^\/usr\/share\/gr/p' "$work/dump" | cut -c 1-150

say "The image, mounted"
if [ "$(id -u)" -ne 0 ]; then
    echo "Only root may mount: run it again with sudo to see this part."
elif ! unshare --mount true 2>/dev/null; then
    echo "This root may not mount (in a container, perhaps), so this part is left out."
else
    mkdir "$work/mnt"
    # In a mount namespace of its own, so that the mount cannot outlive the demo.
    echo "$ cfsctl --repo repo ostree mount demo/main mnt"
    unshare --mount sh -c '
        cfsctl --repo "$1/repo" ostree mount demo/main "$1/mnt" || exit
        ls "$1/mnt"
        "$1/mnt/usr/bin/hi"
        cmp "$1/mnt/usr/share/twin" "$1/mnt/usr/share/twin 2" && echo "twins are alike"
    ' demo "$work" || {
        status=$?
        case $status in
            7 | 9) echo "This kernel or container does not let us mount it, so this part is left out." ;;
            *) exit "$status" ;;
        esac
    }
fi
