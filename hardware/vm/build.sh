#!/usr/bin/env bash
# Build the radio VM of one Debian suite: a kernel, an initial RAM disk and a root image with BlueZ and Python.
#
#   hardware/vm/build.sh                    # Debian bookworm: BlueZ 5.66
#   SUITE=trixie hardware/vm/build.sh       # Debian trixie: BlueZ 5.82
#   hardware/vm/build.sh --force            # build anew although nothing changed
#
# Needs no root and mounts nothing: apt resolves the packages against an empty list of installed ones and only downloads
# them, tar unpacks them, mke2fs fills the image. No maintainer script is run; section "configure" does what they would.
# Packages come from the Debian mirror of this machine's apt sources and are checked against Debian's archive keys.
#
# environment
#   SUITE         bookworm (default) or trixie
#   BUILD         where the result goes; default ${XDG_CACHE_HOME:-~/.cache}/fido-hybrid/vm-SUITE
#   PYTHON        a Python 3.11+ with pip, to fetch the wheels (default python3); it need not be the guest's version
#   DEBIAN_URI, SECURITY_URI   the mirror, where the apt sources name none (a machine that is not Debian)
#
# result: vmlinuz, initrd.gz, root.ext4, VERSIONS, and `key`: what it was built from. The same key is not built twice.
set -euo pipefail

vm=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$vm/../.." && pwd)
SUITE=${SUITE:-bookworm}
BUILD=${BUILD:-${XDG_CACHE_HOME:-$HOME/.cache}/fido-hybrid/vm-$SUITE}
PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

guest_packages=(bash coreutils grep sed util-linux mount iproute2 kmod dbus dbus-daemon bluez bluez-test-tools python3 libc-bin)
# bluetooth itself, the way in for virtual controllers, and the ciphers without which the kernel refuses to pair or bluetoothd
# to resolve addresses ("Unable to create ECDH crypto context"); overlay gives the tests a tree that they can write to.
guest_modules=(bluetooth hci_vhci overlay cmac ecb ctr ccm hmac aes_generic sha256_generic sha512_generic drbg
  ecdh_generic af_alg algif_hash algif_skcipher)
initrd_modules=(virtio_pci virtio_blk virtio_rng ext4 crc32c_generic 9pnet_virtio 9p)
test_requirements=(pytest pytest-asyncio pytest-timeout)

fail() {
  echo "vm: error: $1" >&2
  [ $# -lt 2 ] || echo "vm: hint: $2" >&2
  exit 1
}
say() { echo "vm: $SUITE: $SECONDS s: $*"; }

# need COMMAND PACKAGE: everything missing is named at once
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }

check_host() {
  need apt-get apt
  need dpkg-deb dpkg
  need busybox busybox-static
  need cpio cpio
  need modprobe kmod
  need mke2fs e2fsprogs
  need flock util-linux
  need xz xz-utils
  [ -e "$keyring" ] || missing+=(debian-archive-keyring)
  [ ${#missing[@]} -eq 0 ] || fail "not installed: ${missing[*]}" "apt-get install ${missing[*]}"
  busybox --list | grep -x insmod >/dev/null || fail "this busybox has no insmod" "apt-get install busybox-static"
  [ "$(dpkg --print-architecture)" = amd64 ] || fail "the radio VM is built on amd64 only"
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$PYTHON is older than 3.11" "set PYTHON"
  "$PYTHON" -m pip --version >/dev/null 2>&1 || fail "$PYTHON has no pip" "apt-get install python3-pip, or set PYTHON"
}

# What the guest's Python needs: the project's own dependencies, and pytest with the plug-ins that pyproject.toml configures.
write_requirements() {
  "$PYTHON" - "$repository/pyproject.toml" <<'PY'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print(*tomllib.load(file)["project"]["dependencies"], sep="\n")
PY
  printf '%s\n' "${test_requirements[@]}"
  # pip weighs environment markers for the Python it runs on, not for --python-version: what only an older one needs is named
  echo typing-extensions
}

constraints() { [ ! -e "$repository/constraints.txt" ] || cat "$repository/constraints.txt"; }

key() {
  { echo "$SUITE"; cat "$vm/build.sh" "$vm"/guest/{initramfs-init,radio-init,*.py}; write_requirements; constraints; } | sha256sum | cut -d' ' -f1
}

# ---- an apt world of its own, with nothing installed, so that --download-only fetches everything
prepare_apt() {
  local debian security
  debian=${DEBIAN_URI:-$(repository_uri '/debian/$')}
  security=${SECURITY_URI:-$(repository_uri '/debian-security/$')}
  [ -n "$debian" ] || fail "apt on this machine knows no Debian mirror" "apt-get update, or set DEBIAN_URI and SECURITY_URI"
  # Not for security's sake: the kernel of bookworm's last point release (6.1.176) panics with le-only controllers, in
  # hci_set_adv_data_sync; the security repository has a later one.
  [ -n "$security" ] || fail "apt on this machine knows no Debian security mirror" "apt-get update, or set SECURITY_URI"
  mkdir -p "$work"/apt/lists/partial "$work"/apt/cache/archives/partial "$work"/kernel-deb
  : > "$work/apt/status"
  {
    echo "deb [signed-by=$keyring] $debian $SUITE main"
    echo "deb [signed-by=$keyring] $security $SUITE-security main"
  } > "$work/apt/sources.list"
  # this machine's own hooks are for its own packages
  printf '#clear %s;\n' APT::Update::Post-Invoke APT::Update::Post-Invoke-Success > "$work/apt/hooks.conf"
  apt=(-c "$work/apt/hooks.conf" -o Dir::State="$work/apt" -o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt/cache"
    -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User= -o APT::Get::List-Cleanup=0
    -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Install-Recommends=false
    -o Acquire::Languages=none -o Acquire::Retries=3 -q=2)
  apt-get "${apt[@]}" update
}
# Read from the sources alone, for a machine whose package lists were cleaned away.
repository_uri() {
  # shellcheck disable=SC2016  # apt's own placeholder
  apt-get indextargets --no-release-info --format '$(REPO_URI)' | grep -m1 "$1" || true
}

download_packages() {
  # linux-image-cloud-amd64 would be smaller, but has no Bluetooth
  kernel_package=$(apt-cache "${apt[@]}" depends linux-image-amd64 | sed -n 's/^ *Depends: //p' | head -n1)
  apt-get "${apt[@]}" -y --download-only install "${guest_packages[@]}" >/dev/null
  (cd "$work/kernel-deb" && apt-get "${apt[@]}" download "$kernel_package")
}

unpack_packages() {
  local deb
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$kernel"
  # merged /usr first: packages of both suites then land in the same places
  for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$root/$directory"; done
  for deb in "$work"/apt/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$root" \
      --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/info/*'
  done
  dpkg-deb --fsys-tarfile "$work"/kernel-deb/*.deb | tar -x --no-same-owner -C "$kernel" \
    --exclude='*/drivers/gpu/*' --exclude='*/drivers/media/*' --exclude='*/sound/*' --exclude='*/drivers/net/wireless/*'
  [ -d "$kernel/lib" ] || ln -s usr/lib "$kernel/lib"
  kernel_version=$(basename "$kernel"/lib/modules/*)
  cp "$kernel/boot/vmlinuz-$kernel_version" "$work/vmlinuz"
  depmod -b "$kernel" "$kernel_version" 2>/dev/null || true   # complains about the drivers left out
}

# copy_modules TARGET MODULE...: the modules and what they need, in loading order on stdout. Names that this kernel has
# built in, or no longer has, are passed over.
copy_modules() {
  local target=$1 module file
  shift
  for module in "$@"; do
    modprobe -d "$kernel" -S "$kernel_version" --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p' || true
  done | awk '!seen[$0]++' | while read -r file; do
    file=${file#"$kernel"}
    mkdir -p "$target$(dirname "$file")"
    cp "$kernel$file" "$target$file"
    echo "$file"
  done
}

make_initrd() {
  local initrd=$work/initrd
  mkdir -p "$initrd"/{bin,proc,sys,dev,new,lib}
  copy_modules "$initrd" "${initrd_modules[@]}" | sed 's/\.ko\.xz$/.ko/' > "$initrd/modules-to-load"
  find "$initrd/lib/modules" -name '*.ko.xz' -exec xz -d {} +   # busybox cannot load them compressed
  cp "$(command -v busybox)" "$initrd/bin/busybox"
  install -m 755 "$vm/guest/initramfs-init" "$initrd/init"
  (cd "$initrd" && find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) > "$work/initrd.gz"
}

# ---- configure: what maintainer scripts would have made, and our own files
configure() {
  printf 'root:x:0:0:root:/root:/bin/bash\nmessagebus:x:101:101::/nonexistent:/usr/sbin/nologin\n' > "$root/etc/passwd"
  printf 'root:x:0:\nmessagebus:x:101:\nbluetooth:x:102:\nadm:x:4:\nnetdev:x:103:\nlp:x:7:\n' > "$root/etc/group"
  printf '127.0.0.1 localhost radio-vm\n' > "$root/etc/hosts"
  mkdir -p "$root"/{proc,sys,dev,run,tmp,root,src,out,opt/site,var/lib/dbus,var/lib/bluetooth}
  rm -rf "$root/var/run"
  ln -s /run "$root/var/run"
  ln -sfn bash "$root/bin/sh"
  echo 0123456789abcdef0123456789abcdef | tee "$root/etc/machine-id" > "$root/var/lib/dbus/machine-id"
  install -D -m 644 -t "$root/opt/radio" "$vm"/guest/*.py
  install -m 755 "$vm/guest/radio-init" "$root/sbin/radio-init"
  copy_modules "$root" "${guest_modules[@]}" | sed 's|.*/||; s|\.ko.*||' > "$root/opt/radio/modules"
  cp "$kernel/lib/modules/$kernel_version"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$kernel_version/"
  depmod -b "$root" "$kernel_version"
}

# The guest's own interpreter, run here with the guest's own C library.
guest_python() {
  PYTHONHOME="$root/usr" PYTHONPATH="$root/opt/site" "$root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" \
    --library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/python$python_version" "$@"
}

install_wheels() {
  python_version=$(basename "$(readlink "$root/usr/bin/python3")" | sed 's/^python//')
  write_requirements > "$work/requirements"
  constraints > "$work/constraints"
  PYTHONWARNINGS=ignore "$PYTHON" -m pip --disable-pip-version-check --no-input -q install --no-compile \
    --root-user-action ignore --target "$root/opt/site" --python-version "$python_version" --implementation cp \
    --platform manylinux_2_34_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform any \
    --only-binary :all: -r "$work/requirements" -c "$work/constraints"
  guest_python -c 'import bleak, cbor2, cryptography.x509, dbus_fast.aio, fido2.client, qrcode, websockets, pytest, pytest_asyncio, pytest_timeout' ||
    fail "the guest's Python $python_version cannot import what was installed for it"
  # Importing for the first time is slow under emulation, so compile ahead of time. Not with -j: it would start the guest's
  # interpreter with the C library of this machine.
  local library
  for library in opt/site "usr/lib/python$python_version"; do
    guest_python -m compileall -q -s "$root" --invalidation-mode unchecked-hash "$root/$library" ||
      fail "the guest's Python $python_version cannot compile $library"
  done
}

make_image() {
  rm -rf "$root"/usr/share/{doc,man,locale,info} "$root"/var/cache/apt "$root"/var/lib/apt
  local megabytes=$(($(du -sm "$root" | cut -f1) + 96))
  mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$root" "$work/root.ext4" "${megabytes}M" >/dev/null
}

write_versions() {
  local package
  echo "suite $SUITE"
  echo "kernel $(dpkg-deb -f "$work"/kernel-deb/*.deb Version)"
  for package in bluez bluez-test-tools dbus python3; do
    echo "$package $(dpkg-deb -f "$work/apt/cache/archives/${package}"_*.deb Version)"
  done
  for package in "$root"/opt/site/*.dist-info; do basename "$package" .dist-info | tr - ' '; done
}

case "${1:-}" in
  '') ;;
  --force) rm -f "$BUILD/key" ;;
  *) echo "vm: usage: [SUITE=bookworm|trixie] build.sh [--force]" >&2; exit 2 ;;
esac
case $SUITE in bookworm | trixie) ;; *) fail "no radio VM for Debian suite '$SUITE'" "SUITE is bookworm or trixie" ;; esac

check_host
mkdir -p "$BUILD"
exec 9> "$BUILD/lock"
flock 9     # two at once would build the same thing twice; the second finds it done
wanted=$(key)
if [ "$(cat "$BUILD/key" 2>/dev/null)" = "$wanted" ]; then
  say "nothing changed, nothing built"
  exit 0
fi

rm -rf "$BUILD"/partial.*   # of a build that was killed
work=$(mktemp -d "$BUILD/partial.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root kernel=$work/kernel
prepare_apt
download_packages
say "downloaded $kernel_package and $(find "$work/apt/cache" -name '*.deb' | wc -l) packages," \
  "$(du -cm "$work"/{apt/cache/archives,kernel-deb}/*.deb | tail -n1 | cut -f1) MB"
unpack_packages
make_initrd
configure
say "unpacked"
install_wheels
say "installed the wheels for Python $python_version"
make_image
write_versions > "$work/VERSIONS"
rm -f "$BUILD/key"
mv "$work"/{vmlinuz,initrd.gz,root.ext4,VERSIONS} "$BUILD/"
echo "$wanted" > "$BUILD/key"
say "built $(du -h "$BUILD/root.ext4" | cut -f1) in $BUILD"
