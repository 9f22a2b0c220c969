"""Hostile peers: many that send a request byte by byte, and many that send junk. Counts what it did, on stdout.

python -m benchmarks.relay.attack PORT SLOW JUNK_PER_SECOND

Each slow one sends a byte of a good request every second and comes back when it is thrown out. Ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import sys

HOST = "127.0.0.1"
SOURCES = [f"127.0.1.{number}" for number in range(1, 17)]  # Linux has all of 127.0.0.0/8; and ports would run out
REQUEST = (
    b"GET /cable/new/" + 32 * b"0" + b" HTTP/1.1\r\n"
    b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: fido.cable\r\n"
)
JUNK = (
    b"",
    bytes.fromhex("16030100c8010000c40303") + bytes(200),
    b"\x00" * 3000,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /cable/new/" + 32 * b"0" + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n" + 3000 * b"x",
    b"GET /cable/connect/000000/" + REQUEST.removeprefix(b"GET /cable/new/") + b"\r\n",
    b"GET /" + 9000 * b"A" + b" HTTP/1.1\r\n\r\n",
)

counts = {"slow": 0, "slow_ended": 0, "junk": 0, "junk_refused": 0}


async def slow(port: int) -> None:
    """One slow-loris connection after the other."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(HOST, port, local_addr=(random.choice(SOURCES), 0))
        except OSError:
            await asyncio.sleep(1)  # nothing tells when there is room
            continue
        counts["slow"] += 1
        try:
            for number in itertools.cycle(range(len(REQUEST))):
                writer.write(REQUEST[number : number + 1])
                await asyncio.sleep(1)  # the slowness is the attack
                if reader.at_eof() or writer.transport.is_closing():
                    break
        finally:
            writer.transport.abort()
        counts["slow_ended"] += 1


async def junk(port: int) -> None:
    """Something that is no request, or none that a relay grants."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port, local_addr=(random.choice(SOURCES), 0))
    except OSError:
        counts["junk_refused"] += 1
        return
    try:
        writer.write(random.choice(JUNK))
        await asyncio.wait_for(reader.read(100), 0.2)
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    counts["junk"] += 1


async def main(port: int, slow_ones: int, junk_per_second: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    tasks = set()
    for number in range(slow_ones):
        tasks.add(loop.create_task(slow(port)))
        if number % 50 == 0:
            await asyncio.sleep(0.01)  # not all in one burst
    print("attacking", flush=True)
    start = loop.time()
    for number in itertools.count():
        if ended.is_set():
            break
        await asyncio.sleep(max(0, start + number / junk_per_second - loop.time()))  # the pace is the attack's
        task = loop.create_task(junk(port))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps({**counts, "seconds": loop.time() - start}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
