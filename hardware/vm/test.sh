#!/usr/bin/env bash
# Run the project's radio tests against the real Linux kernel and the real BlueZ, 5.66 and 5.82, in small VMs.
#
#   hardware/vm/test.sh [--suite bookworm|trixie] [--controllers dual|le-only] [--out DIR] [--accel tcg|kvm|auto]
#                       [--selftest] [-- PYTEST-ARGUMENT...]
#
# Builds the VMs if something changed (build.sh), boots each with both kinds of controllers (run.sh), runs tests/radio inside
# and prints one line per boot. Without --suite both suites, at the same time; without --controllers both kinds, one after the
# other. --selftest runs the rig's own test instead: it tells a broken rig from a broken project.
# --out keeps logs and junit.xml in DIR/SUITE-CONTROLLERS; without it they are kept, and named, only after a failure.
# Exit code 0 when every boot passed, else 1. environment: as for build.sh and run.sh.
#
# The tests find in their environment
#   HYBRID_RADIO=real, HYBRID_RADIO_LAPTOP=hci0, HYBRID_RADIO_PHONE=hci1
#   HYBRID_BLUEZ=5.66|5.82 and HYBRID_RADIO_CONTROLLER=dual|le-only
set -euo pipefail

vm=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$vm/../.." && pwd)
PYTHON=${PYTHON:-python3}
usage() { sed -n '4,5s/^# *//p' "$0" >&2; exit 2; }

suites=(bookworm trixie) kinds=(dual le-only) out='' accel=tcg selftest=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --selftest) selftest=(--selftest); shift; continue ;;
    --suite) suites=("${2:?}") ;;
    --controllers) kinds=("${2:?}") ;;
    --out) out=${2:?} ;;
    --accel) accel=${2:?} ;;
    *) usage ;;
  esac
  shift 2
done
[ $# -eq 0 ] || shift
keep=${out:+yes}
[ -n "$out" ] || out=$(mktemp -dt fido-hybrid-vm.XXXXXX)
mkdir -p "$out"
out=$(cd "$out" && pwd)

# No process of ours outlives this script: each child is ended by the trap, and by the kernel if we are killed.
children=()
# shellcheck disable=SC2317  # called by the trap
end_children() {
  local child
  for child in "${children[@]}"; do kill -- "-$child" 2>/dev/null || true; done
  wait
  [ -n "$keep" ] || [ "$failed" -eq 1 ] || rm -rf "$out"
}
failed=0
trap end_children EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
start() { # start COMMAND...: in the background, in a process group of its own
  set -m
  setpriv --pdeathsig TERM "$@" </dev/null &
  set +m
  children+=($!)
}
finish() { # finish: wait for the children in turn, return the last failure
  local child status=0
  for child in "${children[@]}"; do wait "$child" || status=$?; done
  children=()
  return $status
}

run_suite() { # run_suite SUITE PYTEST-ARGUMENT...
  export SUITE=$1
  shift
  local build=${BUILD:-${XDG_CACHE_HOME:-$HOME/.cache}/fido-hybrid/vm-$SUITE} bluez kind logs status failures=0
  if ! { start "$vm/build.sh"; finish; } then echo "vm: $SUITE: not built" >&2; return 1; fi
  bluez=$(sed -n 's/^bluez \([0-9.]*\).*/\1/p' "$build/VERSIONS")
  for kind in "${kinds[@]}"; do
    logs=$out/$SUITE-$kind
    mkdir -p "$logs"
    rm -f "$logs/junit.xml"
    # --confcutdir: only tests/radio runs in the VM, and only what it needs is installed there; --timeout: emulation is slow
    start "$vm/run.sh" --src "$repository" --out "$logs" --controllers "$kind" --accel "$accel" \
      --env HYBRID_RADIO=real --env HYBRID_RADIO_LAPTOP=hci0 --env HYBRID_RADIO_PHONE=hci1 \
      --env "HYBRID_BLUEZ=$bluez" --env "HYBRID_RADIO_CONTROLLER=$kind" -- "$(command_line "$@")" > "$logs/run.log" 2>&1
    status=0
    finish || status=$?
    [ $status -eq 0 ] || failures=1
    echo "vm: BlueZ $bluez, $kind: $(summary "$logs" $status)"
    [ $status -eq 0 ] || sed 's/^/  /' "$logs/run.log" >&2
  done
  return $failures
}
command_line() {
  if [ ${#selftest[@]} -gt 0 ]; then
    echo 'python3 /opt/radio/selftest.py'
  else
    echo "python3 -m pytest -q -rs -p no:cacheprovider --confcutdir=tests/radio --timeout=120 --junitxml=/out/junit.xml" \
      "-m radio${*:+ ${*@Q}} tests/radio"
  fi
}
summary() { # summary LOGS STATUS
  local ready
  ready=$(sed -n 's/^vm: \([0-9]*\)[0-9.]* s: adapters are on$/\1/p' "$1/console.log" 2>/dev/null || true)
  if [ -z "$ready" ]; then
    echo "did not boot"
  elif [ -e "$1/junit.xml" ]; then
    "$PYTHON" - "$1/junit.xml" "$ready" <<'PY'
import sys
import xml.etree.ElementTree as tree

suite = tree.parse(sys.argv[1]).getroot().find("testsuite")
total, skipped = int(suite.get("tests")), int(suite.get("skipped"))
failed = int(suite.get("failures")) + int(suite.get("errors"))
print(f"passed {total - failed - skipped} failed {failed} skipped {skipped}", end=" ")
print(f"(ready after {sys.argv[2]} s, tests {float(suite.get('time')):.0f} s)")
PY
  else
    echo "$([ "$2" -eq 0 ] && echo passed || echo "failed, exit code $2") (ready after $ready s)"
  fi
}

if [ ${#suites[@]} -eq 1 ]; then
  run_suite "${suites[0]}" "$@" || failed=1
else
  [ -z "${BUILD:-}" ] || { echo "vm: error: BUILD is for one suite" >&2; echo "vm: hint: add --suite" >&2; exit 2; }
  options=(--out "$out" --accel "$accel" "${selftest[@]}")
  [ ${#kinds[@]} -gt 1 ] || options+=(--controllers "${kinds[0]}")
  for suite in "${suites[@]}"; do start "$0" --suite "$suite" "${options[@]}" -- "$@"; done
  finish || failed=1
fi
[ -n "$keep" ] || [ $failed -eq 0 ] || echo "vm: logs in $out" >&2
exit $failed
