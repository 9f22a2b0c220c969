"""The relay under a running systemd: what `try.sh` runs in its VM, as root.

It installs the units as docs/relay.md says, then uses the relay as an operator would (systemctl) and as phones and
laptops do (TLS on port 443), once with one process and once with two workers. A line for each promise that was kept;
for one that was broken the traceback and the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.relay.cluster_rig import Refused, Side, http_get, opened, tunnel
from tests.relay.tls import Certificate, make_certificate

PROGRAM = "/opt/fido-hybrid/bin/tunnel-server"
SERVICE = "tunnel-server.service"
SOCKET = "tunnel-server.socket"
CONFIG = Path("/etc/tunnel-server/tunnel-server.toml")
DROP_IN = Path(f"/etc/systemd/system/{SERVICE}.d/try.conf")
KEYS = Path("/etc/tunnel-server")
CREDENTIALS = Path("/run/credentials") / SERVICE
ADMIN = 9090
PATIENCE = 180.0  # s, far above what anything takes, emulated as the machine is


def say(text: str) -> None:
    print(f"try: {text}", flush=True)


def run(*words: str, good: bool = True) -> str:
    """What a command prints; `good`: whether it must succeed."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert (done.returncode == 0) is good, f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def shown(name: str, unit: str = SERVICE) -> str:
    """A property of a unit."""
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def pid() -> int:
    return int(shown("MainPID"))


def journal(*options: str) -> str:
    """What the service and systemd said about it."""
    return run("journalctl", "--no-pager", "-o", "cat", "-u", SERVICE, *options)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            holds = condition()
            if holds is True or (not isinstance(holds, bool) and await holds):
                return
            await asyncio.sleep(0.2)  # another process cannot call us


async def until_active(other_than: int = 0) -> None:
    """Until the service is ready, as another process than this one."""
    await until(lambda: shown("SubState") == "running" and pid() != other_than)


def configure(drop_in: str, *lines: str) -> None:
    """Write the documented file with `lines` below it, and a drop-in for the unit."""
    shutil.copy("packaging/tunnel-server.toml", CONFIG)
    with CONFIG.open("a") as file:
        file.write("\n".join((*lines, 'log-level = "debug"', f'admin = "127.0.0.1:{ADMIN}"', "drain = 8.0", "")))
    DROP_IN.parent.mkdir(exist_ok=True)
    DROP_IN.write_text(f"[Service]\n{drop_in}\n")
    run("systemctl", "daemon-reload")


def certify(folder: Path) -> Certificate:
    """A new certificate where the configuration names it."""
    folder.mkdir()
    made = make_certificate(folder)
    for source, target in ((made.cert, "chain.pem"), (made.key, "key.pem")):
        (KEYS / target).write_bytes(source.read_bytes())  # the file stays, and who may read it
    return made


async def seen() -> str:
    """The certificate that a client gets, PEM."""
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", 443))


async def sees(certificate: Certificate) -> bool:
    return await seen() == certificate.cert.read_text()


def install() -> None:
    run("install", "-Dm644", "packaging/tunnel-server.toml", str(CONFIG))
    run(PROGRAM, "check-config", str(CONFIG))
    for unit in (SERVICE, SOCKET):
        run("install", "-m644", f"packaging/systemd/{unit}", "/etc/systemd/system/")
    say(f"installed under {run('systemctl', '--version').splitlines()[0]}")


async def start() -> None:
    begin = time.monotonic()
    run("systemctl", "enable", "--now", SOCKET, SERVICE)
    assert shown("SubState") == "running", "Type=notify: it is running when the command returns"
    say(f"enable --now: running after {time.monotonic() - begin:.1f} s")
    chain = KEYS / "chain.pem"
    for host in ("127.0.0.1", "::1"):
        assert await asyncio.to_thread(ssl.get_server_certificate, (host, 443)) == chain.read_text()
    assert shown("SubState", SOCKET) == "running", "the socket is systemd's"
    say("serves port 443, IPv4 and IPv6, over TLS with the key from its credentials")
    await http_get(ADMIN, "/readyz")


async def activation() -> None:
    run("systemctl", "stop", SERVICE)
    assert shown("ActiveState") == "inactive"
    await seen()
    await until_active()
    say("a connection to the socket starts the stopped service, and is served")


async def locked_up() -> None:
    process = Path(f"/proc/{pid()}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    user = int(status["Uid"].split()[0])
    assert 61184 <= user <= 65519, user
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 10, "CAP_NET_BIND_SERVICE alone"
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    say(f"runs as user {user}, with one capability, system calls filtered")
    limits = (process / "limits").read_text()
    assert re.search(r"Max open files +1048576 +1048576 ", limits), limits
    say("open files: 1048576")
    as_it = ("nsenter", "-m", "-S", str(user), "-G", str(user), "-t", process.name)
    for path in ("/", "/etc", "/opt/fido-hybrid", "/var/lib", "/usr", str(KEYS), str(CREDENTIALS)):
        for who in (as_it, ("nsenter", "-m", "-t", process.name)):  # root would be let in, so it must be read-only
            assert "Read-only file system" in run(*who, "touch", f"{path}/x", good=False) or who is as_it, path
    run(*as_it, "touch", "/run/tunnel-server/x")
    run(*as_it, "rm", "/run/tunnel-server/x")
    say("writes nowhere but in /run/tunnel-server")
    assert "Permission denied" in run(*as_it, "cat", str(KEYS / "key.pem"), good=False)
    exposure = run("systemd-analyze", "security", "--no-pager", SERVICE).strip().splitlines()[-1]
    say(re.sub(r"[^\x20-\x7e]", "", exposure).strip())


async def silent(context: ssl.SSLContext) -> None:
    """Tunnels, and a refused join; nothing of them in the journal."""
    owners: list[Side] = []
    async with tunnel(443, context=context) as (owner, guest):
        assert await owner.alive(guest)
        owners.append(owner)
    number = "0123456789abcdeffedcba9876543210"
    owner = await opened(443, f"/cable/new/{number}", context)
    owners.append(owner)
    with contextlib.suppress(Refused):
        await opened(443, f"/cable/connect/{owner.routing_id}/{'77' * 16}", context)
    owner.abort()
    said = run("journalctl", "--no-pager", "-o", "export", "-u", SERVICE, "--output-fields=MESSAGE").lower()
    for secret in (number, "77" * 16, *(side.routing_id for side in owners), "127.0.0.1:4", "::1"):
        assert not re.search(rf"(?<![0-9a-f]){re.escape(secret.lower())}", said), secret
    say(f"a journal of {len(said.splitlines())} lines at level debug holds no id and no address")


async def copied(context: ssl.SSLContext) -> None:
    """`systemctl reload` with new files, of which the service has copies (credentials)."""
    async with tunnel(443, context=context) as (owner, guest):
        old = await seen()
        certify(Path("/root/copied"))
        run("systemctl", "reload", SERVICE)
        await until(lambda: "new certificates are in use" in journal())
        assert await seen() == old
        assert await owner.alive(guest)
    run("systemctl", "restart", SERVICE)
    assert await seen() != old
    say("reload: no tunnel dropped; credentials are copies, so the certificate stays until a restart")


async def reloaded(context: ssl.SSLContext, folder: Path) -> None:
    """`systemctl reload` with new files."""
    before = pid()
    async with tunnel(443, context=context) as (owner, guest):
        made = certify(folder)
        run("systemctl", "reload", SERVICE)
        await until(lambda: sees(made))
        assert await owner.alive(guest)
        (KEYS / "key.pem").write_text("nonsense")
        run("systemctl", "reload", SERVICE)
        await until(lambda: "the old one stays in use" in journal())
        assert await sees(made)
        assert await owner.alive(guest)
    (KEYS / "key.pem").write_bytes(made.key.read_bytes())
    assert (pid(), shown("SubState")) == (before, "running")
    say("reload: the new certificate is seen, no tunnel dropped; nonsense changes nothing")


async def drained(context: ssl.SSLContext) -> None:
    before = pid()
    async with tunnel(443, context=context) as (owner, guest):
        run("systemctl", "stop", "--no-block", SERVICE)
        await until(lambda: shown("SubState") == "stop-sigterm")
        assert await owner.alive(guest)
        begin = time.monotonic()
        assert await owner.ending() == 1001
        waited = time.monotonic() - begin
    await until(lambda: shown("ActiveState") == "inactive")
    assert shown("Result") == "success"
    assert shown("ExecMainStatus") == "0"
    run("systemctl", "start", SERVICE)
    assert pid() != before
    say(f"stop: a tunnel lived on for {waited:.0f} s (drain = 8), then close 1001; result success")


@asynccontextmanager
async def knocking(context: ssl.SSLContext) -> AsyncIterator[Counter[str]]:
    """New tunnels one after the other, five at once, and what became of them."""
    counted: Counter[str] = Counter()

    async def knock() -> None:
        while True:
            try:
                side = await opened(443, f"/cable/new/{time.monotonic_ns():032x}", context)
                side.abort()
                counted["101"] += 1
            except Refused as exc:
                counted[str(exc.status)] += 1
            except (OSError, EOFError) as exc:
                counted[type(exc).__name__] += 1
            await asyncio.sleep(0.05)  # the pace of knocking

    tasks = [asyncio.ensure_future(knock()) for _ in range(5)]
    try:
        yield counted
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def restarted(context: ssl.SSLContext) -> None:
    before = pid()
    async with knocking(context) as counted:
        await until(lambda: counted["101"] > 5)
        await asyncio.to_thread(run, "systemctl", "restart", SERVICE)
        after = counted["101"]
        await until(lambda: counted["101"] > after + 5)
    assert pid() != before
    assert "ConnectionRefusedError" not in counted, counted
    say(f"restart under knocking: {dict(counted)}, no connection refused")


async def watchdog(context: ssl.SSLContext) -> None:
    before, restarts = pid(), int(shown("NRestarts"))
    begin = time.monotonic()
    os.kill(before, signal.SIGSTOP)
    await until(lambda: int(shown("NRestarts")) > restarts)
    await until_active(before)
    assert "Watchdog timeout" in journal()
    async with tunnel(443, context=context) as (owner, guest):
        assert await owner.alive(guest)
    say(f"watchdog: a stopped process is replaced, {time.monotonic() - begin:.0f} s after its last breath")


async def killed() -> None:
    before = pid()
    os.kill(before, signal.SIGKILL)
    await until_active(before)
    await seen()
    say("SIGKILL: started again")


async def misconfigured() -> None:
    """A file that is no good: said once, not tried again and again, and good again after it was corrected."""
    run("sed", "-i", "$a light-house = 5", str(CONFIG))
    # emulated, it is too slow to fail ten times in a minute
    DROP_IN.with_name("limit.conf").write_text("[Unit]\nStartLimitBurst=3\n")
    run("systemctl", "daemon-reload")
    mark = run("journalctl", "--no-pager", "-n0", "--show-cursor").rpartition("cursor: ")[2].strip()

    def complaints() -> list[str]:
        return [line for line in journal(f"--after-cursor={mark}").splitlines() if "light-house" in line]

    run("systemctl", "restart", SERVICE, good=False)
    assert (shown("Result"), shown("SubState")) == ("exit-code", "failed")
    await asyncio.sleep(10)  # ten times RestartSec
    assert len(complaints()) == 1, complaints()
    say(f"a bad file is said once and not tried again: {complaints()[0]}")
    _, waiting = await asyncio.open_connection("127.0.0.1", 443)
    await until(lambda: shown("ActiveState", SOCKET) == "failed")
    assert 1 < len(complaints()) <= 4, complaints()
    say(f"a connection that waits starts it {len(complaints()) - 1} times more, then the socket closes too")
    waiting.close()
    run("sed", "-i", "/^light-house/d", str(CONFIG))
    run("systemctl", "reset-failed", SOCKET, SERVICE)
    run("systemctl", "restart", SOCKET, SERVICE)
    await seen()
    say("a corrected file: reset-failed and restart of both are enough")


async def renewed(context: ssl.SSLContext) -> None:
    async with tunnel(443, context=context) as (owner, guest):
        run("systemctl", "kill", "--kill-whom=main", "--signal=USR2", SERVICE)
        await until(lambda: "every worker is a new one" in journal())
        assert await owner.alive(guest)
    say("SIGUSR2: new workers, and a tunnel of an old one lives on")


async def everything() -> int:
    """All promises in turn; the number of those that were broken."""
    broken = 0

    async def kept(promise: Awaitable[None]) -> None:
        nonlocal broken
        try:
            await promise
        except Exception:  # whatever breaks one promise, the next is looked at
            broken += 1
            say(f"BROKEN {traceback.format_exc()}{run('journalctl', '--no-pager', '-n', '40')}")

    install()
    context = certify(Path("/root/one")).client_context()
    for name in ("chain.pem", "key.pem"):
        (KEYS / name).chmod(0o600)
    load = [f"LoadCredential={name}:{KEYS / file}" for name, file in (("cert", "chain.pem"), ("key", "key.pem"))]
    configure("\n".join(load), *(f'{name} = "{CREDENTIALS / name}"' for name in ("cert", "key")))
    await kept(start())
    await kept(locked_up())
    await kept(activation())
    await kept(silent(context))
    await kept(copied(context))
    run("groupadd", "--system", "relay-keys")
    for name in ("chain.pem", "key.pem"):
        shutil.chown(KEYS / name, group="relay-keys")
        (KEYS / name).chmod(0o640)
    for workers in (1, 2):
        say(f"---- workers: {workers}")
        files = (f'cert = "{KEYS}/chain.pem"', f'key = "{KEYS}/key.pem"')
        configure("SupplementaryGroups=relay-keys\nWatchdogSec=10", *files, f"workers = {workers}")
        context = certify(Path(f"/root/before-{workers}")).client_context()
        run("systemctl", "restart", SERVICE)
        await kept(silent(context))
        await kept(reloaded(context, Path(f"/root/after-{workers}")))
        context = certify(Path(f"/root/later-{workers}")).client_context()
        run("systemctl", "restart", SERVICE)
        if workers > 1:
            await kept(renewed(context))
        await kept(drained(context))
        await kept(restarted(context))
        await kept(watchdog(context))
        await kept(killed())
    await kept(misconfigured())
    return broken


def main() -> int:
    broken = asyncio.run(everything())
    say(f"{broken} broken" if broken else "all of it")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
