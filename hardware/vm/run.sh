#!/usr/bin/env bash
# Boot the radio VM, run one command in it between two virtual Bluetooth adapters, power off, exit with the command's exit code.
#
#   hardware/vm/run.sh [--src DIR] [--out DIR] [--controllers dual|le-only] [--accel tcg|kvm|auto]
#                      [--timeout SECONDS] [--env NAME=VALUE]... -- COMMAND...
#
#   --src          a tree to work in: /src in the VM, where COMMAND starts. What the VM writes there is forgotten.
#   --out          a folder for results: /out in the VM. Gets console.log, bluetoothd.log, btvirt.log, dbus.log, dmesg.log
#                  and whatever COMMAND writes there. Default: a new folder, named at the end.
#   --controllers  dual (default): BR/EDR and LE with extended advertising; le-only: LE with the older commands
#   --accel        tcg (default): emulated, works everywhere; auto: KVM if it boots a kernel here
#   --timeout      for COMMAND (default 300); booting has 120 s of its own
#   --env          NAME=VALUE for COMMAND. For the VM itself: BTMON=1 records HCI traffic in /out, REPEAT_ADVERTS=0 leaves
#                  adverts as btvirt sends them (guest/repeat_adverts.py)
# environment: SUITE, BUILD as for build.sh; MEM (512, MiB), SMP (1).
#
# COMMAND is a line for bash, run as root: system bus up, bluetoothd up, adapters hci0 and hci1 powered on and in range of each
# other, loopback TCP and no other network, /src and the project's dependencies importable by python3.
# Exit code 125: no exit code came back from the VM.
set -euo pipefail

usage() { sed -n '4,5s/^# *//p' "$0" >&2; exit 2; }
SUITE=${SUITE:-bookworm}
BUILD=${BUILD:-${XDG_CACHE_HOME:-$HOME/.cache}/fido-hybrid/vm-$SUITE}
src='' out='' controllers=dual accel=tcg limit=300 environment=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  [ $# -gt 1 ] || usage
  case $1 in
    --src) src=$(cd "$2" && pwd) ;;
    --out) mkdir -p "$2"; out=$(cd "$2" && pwd) ;;
    --controllers) controllers=$2 ;;
    --accel) accel=$2 ;;
    --timeout) limit=$2 ;;
    --env) environment+=("$2") ;;
    *) usage ;;
  esac
  shift 2
done
[ $# -gt 1 ] || usage
shift
case $controllers in dual | le-only) ;; *) usage ;; esac
command -v qemu-system-x86_64 >/dev/null || { echo "vm: error: not installed: qemu-system-x86" >&2; exit 2; }
[ -e "$BUILD/key" ] || { echo "vm: error: there is no VM in $BUILD" >&2; echo "vm: hint: SUITE=$SUITE hardware/vm/build.sh" >&2; exit 2; }

[ -n "$out" ] || out=$(mktemp -dt fido-hybrid-vm.XXXXXX)
rm -f "$out"/{exit-code,console.log}
printf '%s\n' "$*" > "$out/command"
{
  printf 'CONTROLLERS=%q COMMAND_TIMEOUT=%q\n' "$controllers" "$limit"
  for variable in "${environment[@]}"; do printf 'export %q\n' "$variable"; done
} > "$out/environment"

works_with_kvm() { # a kernel without a root panics and so ends qemu, unless KVM is broken: then it hangs
  timeout 8 qemu-system-x86_64 -accel kvm -cpu host -M q35 -nodefaults -no-reboot -display none -m 256 \
    -kernel "$BUILD/vmlinuz" -append "panic=-1 quiet" </dev/null >/dev/null 2>&1
}
case $accel in
  auto) if works_with_kvm; then accel=kvm; else accel=tcg; fi ;;
  tcg | kvm) ;;
  *) usage ;;
esac
# tb-size: qemu's default translation buffer makes it take 1.4 GB instead of 0.44
if [ "$accel" = kvm ]; then processor=(-accel kvm -cpu host); else processor=(-accel "tcg,thread=multi,tb-size=192" -cpu max); fi

share() { # share NAME FOLDER [OPTION]
  printf '%s\n' -fsdev "local,id=$1,path=${2//,/,,},security_model=none${3:+,$3}" -device "virtio-9p-pci,fsdev=$1,mount_tag=$1"
}
mapfile -t shares < <(share out "$out"; [ -z "$src" ] || share src "$src" readonly=on)

# qemu must not outlive this script: killed with it (trap), after it (pdeathsig), and when it hangs (timeout).
qemu=
# shellcheck disable=SC2317  # called by the trap
end_qemu() {
  [ -z "$qemu" ] || { kill "$qemu" 2>/dev/null; wait "$qemu" 2>/dev/null; }
  qemu=
}
trap end_qemu EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
setpriv --pdeathsig TERM timeout -k 5 $((limit + 120)) setpriv --pdeathsig KILL \
  qemu-system-x86_64 "${processor[@]}" -smp "${SMP:-1}" -m "${MEM:-512}" -M q35 -nodefaults -no-user-config -no-reboot -display none \
  -kernel "$BUILD/vmlinuz" -initrd "$BUILD/initrd.gz" -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check" \
  -serial stdio -drive "if=none,id=root,file=${BUILD//,/,,}/root.ext4,format=raw,snapshot=on,cache=unsafe" -device virtio-blk-pci,drive=root \
  -object rng-random,id=random,filename=/dev/urandom -device virtio-rng-pci,rng=random \
  "${shares[@]}" </dev/null &
qemu=$!
status=0
wait "$qemu" || status=$?
qemu=
echo "vm: $SECONDS s in all; logs in $out"
[ -s "$out/exit-code" ] || { echo "vm: error: no exit code came back (qemu ended with $status)" >&2; exit 125; }
exit "$(cat "$out/exit-code")"
