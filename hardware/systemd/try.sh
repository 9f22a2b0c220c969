#!/usr/bin/env bash
# Boot a small Debian bookworm with systemd as process 1, install the relay and its units in it as docs/relay.md says, and see
# whether systemd and the relay do with each other what the units promise (inside.py). Exit code 0: all of it.
#
#   hardware/systemd/try.sh [--out DIR]     DIR gets console.log; default: a new folder, named at the end
#
# Needs root, for a Debian installed into a folder. That is kept in BUILD and made anew, with the network, when build_system
# here or constraints.txt changed. The VM is emulated (no KVM), lives in memory and has no network.
# environment: BUILD, PYTHON (3.11 or later with pip; default python3), MIRROR (default: that of this machine's apt)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
BUILD=${BUILD:-${XDG_CACHE_HOME:-$HOME/.cache}/fido-hybrid/systemd-bookworm}
PYTHON=${PYTHON:-python3}
limit=1800   # s, far above what it takes
pip=(env PIP_ROOT_USER_ACTION=ignore "$PYTHON" -m pip --disable-pip-version-check --no-input -q)

fail() { echo "systemd: error: $1" >&2; echo "systemd: hint: $2" >&2; exit 2; }
say() { echo "systemd: $SECONDS s: $*"; }

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need mmdebstrap mmdebstrap
need cpio cpio
need flock util-linux
need qemu-system-x86_64 qemu-system-x86
[ ${#missing[@]} -eq 0 ] || fail "not installed: ${missing[*]}" "apt-get install ${missing[*]}"
[ "$(id -u)" -eq 0 ] || fail "installing a Debian into a folder needs root" "run it as root"
out=
case "${1:-}" in
  '') ;;
  --out) mkdir -p "$2"; out=$(cd "$2" && pwd) ;;
  *) echo "systemd: usage: try.sh [--out DIR]" >&2; exit 2 ;;
esac
[ -n "$out" ] || out=$(mktemp -dt fido-hybrid-systemd.XXXXXX)

# ---- Debian, with a virtual environment that has everything but the project; a kernel
build_system() {
  local wheels=$work/wheels mirror
  # shellcheck disable=SC2016  # apt's own placeholder
  mirror=${MIRROR:-$(apt-get indextargets --no-release-info --format '$(REPO_URI)' | grep -m1 '/debian/$' || true)}
  "$PYTHON" - "$repository/pyproject.toml" > "$work/requirements" <<'PY'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
own = [*project["dependencies"], *project["optional-dependencies"]["relay"]]
print(*own, "prometheus-client", "typing-extensions", "pip", sep="\n")
PY
  "${pip[@]}" download -d "$wheels" --python-version 3.11 --implementation cp --only-binary :all: \
    --platform manylinux_2_34_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform any -r "$work/requirements" -c "$repository/constraints.txt"
  cat > "$work/finish" <<'HOOK'
set -e
root=$1 work=$2
cp -r "$work/wheels" "$work/requirements" "$root/tmp/"
chroot "$root" sh -ec '
  python3 -m venv /opt/fido-hybrid
  /opt/fido-hybrid/bin/pip install -q --isolated --no-index --find-links /tmp/wheels -r /tmp/requirements
  cd /tmp
  apt-get download -q=2 $(apt-cache depends linux-image-cloud-amd64 | sed -n "s/^ *Depends: //p")
  dpkg-deb --fsys-tarfile linux-image-*.deb | tar -xO --wildcards "./boot/vmlinuz-*"' > "$work/vmlinuz"
rm -rf "$root"/tmp/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
ln -s usr/lib/systemd/systemd "$root/init"
cd "$root"
find . -xdev ! -path './dev/*' ! -path './proc/*' ! -path './sys/*' | cpio -o -H newc --quiet > "$work/system.cpio"
HOOK
  mmdebstrap --quiet --mode=root --variant=minbase --include=systemd-sysv,dbus,python3-venv --format=null \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook="sh '$work/finish' \"\$1\" '$work'" \
    bookworm - ${mirror:+"$mirror"}
  rm -f "$BUILD/key"
  mv "$work"/{vmlinuz,system.cpio} "$BUILD/"
  key > "$BUILD/key"
}
key() { { declare -f build_system; cat "$repository/constraints.txt"; } | sha256sum; }

mkdir -p "$BUILD"
work=$(mktemp -dt fido-hybrid-systemd.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
exec 9> "$BUILD/lock"
flock 9
if [ "$(cat "$BUILD/key" 2>/dev/null)" != "$(key)" ]; then
  build_system
  say "built $(du -h "$BUILD/system.cpio" | cut -f1) in $BUILD"
fi

# ---- the project, put into the virtual environment from here, because pip takes a minute in an emulated machine; a service
# that runs inside.py and shows what it says
tree=$work/tree
program=$tree/opt/fido-hybrid/bin/tunnel-server
mkdir -p "$tree/src" "$(dirname "$program")" "$tree/etc/systemd/system/multi-user.target.wants"
cp -r "$repository"/{packaging,tests,hardware} "$tree/src/"
"${pip[@]}" install --no-deps --no-build-isolation --no-compile \
  --target "$tree/opt/fido-hybrid/lib/python3.11/site-packages" "$repository"
printf '#!/opt/fido-hybrid/bin/python\nimport sys\nfrom tunnel_server.__main__ import run\nsys.exit(run())\n' > "$program"
chmod 755 "$program"
cp "$here/try.service" "$tree/etc/systemd/system/"
ln -s ../try.service "$tree/etc/systemd/system/multi-user.target.wants/"
(cd "$tree" && find . | cpio -o -H newc -R 0:0 --quiet) > "$work/tree.cpio"
cat "$BUILD/system.cpio" "$work/tree.cpio" > "$work/initrd"
cp "$BUILD/vmlinuz" "$work/vmlinuz"
flock -u 9

say "booting"
setpriv --pdeathsig TERM timeout -k 5 "$limit" setpriv --pdeathsig KILL \
  qemu-system-x86_64 -accel tcg,thread=multi,tb-size=256 -cpu max -smp 2 -m 1536 -M q35 -nodefaults -no-user-config -no-reboot \
  -display none -kernel "$work/vmlinuz" -initrd "$work/initrd" -serial stdio \
  -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr rdinit=/init systemd.show_status=0" \
  </dev/null | tee "$out/console.log" | sed -u -n "s|^.*try: ||p; /Traceback/,\$p"
say "log in $out/console.log"
grep -q 'try: all of it' "$out/console.log"
