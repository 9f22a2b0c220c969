#!/usr/bin/env bash
# Build the relay's container from packaging/oci/Containerfile and run it as its comment says: read-only, nobody, no capability.
#
#   hardware/container/try.sh
#
# Needs root, Debian's buildah (build, without namespaces) and runc (run), and a network: pip fetches the wheels inside. The
# base image of the file would come from a registry; here Debian trixie, whose Python is 3.13 too, takes its name.
# environment: BUILD, where images are kept; PYTHON, with the project installed (default python3)
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-${XDG_CACHE_HOME:-$HOME/.cache}/fido-hybrid/container}
PYTHON=${PYTHON:-python3}
# whom this machine believes: pip in the container believes them too
certificates=/etc/ssl/certs/ca-certificates.crt

fail() { echo "container: error: $1" >&2; echo "container: hint: $2" >&2; exit 2; }
kept() { echo "container: $SECONDS s: $*"; }

missing=()
for program in buildah mmdebstrap runc; do command -v "$program" >/dev/null || missing+=("$program"); done
[ ${#missing[@]} -eq 0 ] || fail "not installed: ${missing[*]}" "apt-get install ${missing[*]}"
[ "$(id -u)" -eq 0 ] || fail "building without namespaces needs root" "run it as root"

mkdir -p "$BUILD"
exec 9> "$BUILD/lock"
flock 9
work=$(mktemp -dt fido-hybrid-container.XXXXXX)
running=
end() {
  [ -z "$running" ] || runc --root "$work/runc" delete --force relay 2>/dev/null || true
  buildah rm -a >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap end EXIT
trap 'exit 143' INT TERM HUP
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$BUILD/images" "$work/run" > "$work/storage.conf"
export CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_ISOLATION=chroot

base=$(sed -n 's/^FROM \([^ ]*\)$/\1/p' "$repository/packaging/oci/Containerfile")
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  # shellcheck disable=SC2016  # apt's own placeholder
  mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI)' | grep -m1 '/debian/$' || true)
  mmdebstrap --quiet --mode=root --variant=minbase --include=python3-venv,python-is-python3,ca-certificates \
    trixie "$work/base.tar" ${mirror:+"$mirror"}
  container=$(buildah from scratch)
  buildah add -q "$container" "$work/base.tar" / >/dev/null
  buildah config --env PATH=/usr/local/bin:/usr/bin:/bin "$container"
  buildah commit -q --rm "$container" "$base" >/dev/null
  rm "$work/base.tar"
  kept "made a base image, $base"
fi

printf '[global]\ncert = %s\n' "$certificates" > "$work/pip.conf"
(cd "$repository" && buildah build --pull=never --format docker -f packaging/oci/Containerfile -t tunnel-server \
  -v "$certificates:$certificates:ro" -v "$work/pip.conf:/etc/pip.conf:ro" . > "$work/build.log" 2>&1) || {
  cat "$work/build.log"
  fail "the build failed" "its words stand above"
}
kept "built"

mkdir "$work/tls" "$work/bundle"
(cd "$repository" && "$PYTHON" -c 'import sys; from pathlib import Path; from tests.relay.tls import make_certificate
made = make_certificate(Path(sys.argv[1])); made.cert.rename(made.cert.with_name("chain.pem"))' "$work/tls")
chown -R 65532 "$work/tls"
chmod 711 "$work" "$work/bundle"
container=$(buildah from --pull=never localhost/tunnel-server)
buildah inspect --type image localhost/tunnel-server > "$work/image.json"
(cd "$work/bundle" && runc spec)
"$PYTHON" - "$work" "$(buildah mount "$container")" <<'PY'
import json, sys
from pathlib import Path
work, root = map(Path, sys.argv[1:])
image = json.loads((work / "image.json").read_text())["Docker"]["config"]
user, group = map(int, image["User"].split(":"))
spec = json.loads((work / "bundle/config.json").read_text())
spec["root"] = {"path": str(root), "readonly": True}
spec["process"] |= {"terminal": False, "user": {"uid": user, "gid": group}, "noNewPrivileges": True}
spec["process"] |= {"capabilities": {}, "rlimits": [], "env": image["Env"]}
spec["process"]["args"] = [*image["Entrypoint"], *image["Cmd"], "--workers", "2"]
spec["linux"] = {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]}  # this machine's network
spec["mounts"] = [mount for mount in spec["mounts"] if not mount["destination"].startswith("/sys")]
spec["mounts"] += [
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
    {"destination": "/etc/tunnel-server/tls", "type": "none", "source": str(work / "tls"), "options": ["bind", "ro"]},
]
(work / "bundle/config.json").write_text(json.dumps(spec))
(work / "health").write_text(json.dumps(image["Healthcheck"]["Test"]))
PY
running=yes
setpriv --pdeathsig KILL runc --root "$work/runc" run --bundle "$work/bundle" relay > "$work/relay.log" 2>&1 &
runner=$!
for _ in $(seq 300); do
  if grep -q '^listening on' "$work/relay.log" || ! kill -0 "$runner" 2>/dev/null; then break; fi
  sleep 0.1
done
grep -q '^listening on' "$work/relay.log" || { cat "$work/relay.log"; fail "it does not start" "its words stand above"; }

inside() { runc --root "$work/runc" exec relay "$@"; }
mapfile -t health < <("$PYTHON" -c 'import json, sys; print(*json.load(open(sys.argv[1]))[1:], sep="\n")' "$work/health")
inside "${health[@]}"
kept "healthy, by the image's own check"
for path in / /etc /opt/fido-hybrid /var/tmp; do
  ! inside touch "$path/x" 2>/dev/null || fail "it can write to $path" "make that read-only"
done
[ "$(inside id -u)" = 65532 ]
inside grep -q '^CapEff:	0000000000000000$' /proc/1/status
kept "user 65532, no capability, read-only"
(cd "$repository" && "$PYTHON" - "$work/tls/ca.pem" <<'PY')
import asyncio, ssl, sys
from tests.relay.cluster_rig import transaction
async def some() -> None:
    for _ in range(20):
        await transaction(8443, context=ssl.create_default_context(cafile=sys.argv[1]))
asyncio.run(some())
PY
kept "20 transactions over TLS, two workers"
runc --root "$work/runc" kill relay TERM
wait "$runner"
kept "SIGTERM: exit code 0"
