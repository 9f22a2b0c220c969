"""Routing ids (CTAP 2.3 §11.5.1, "tunnel service"): the 3 bytes that name one worker of one node. Pure.

The specification leaves the content of a routing id to the relay. Ours, from the most significant bit:

    8 bits  node     which machine; a byte of its own, so that a balancer reads it as two hex digits of the path
    6 bits  worker   which process on that machine
    10 bits epoch    drawn at random when the process starts

A tunnel lives in the process that made it, and the path of whoever joins names that process: nothing is shared and
nothing is looked up. The epoch keeps apart a process and its successor, which live side by side while the first one
drains, and lets the path of a tunnel that died with its process name nobody instead of a stranger.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hybrid.protocol.tunnel import ROUTING_ID_SIZE

NODES = 1 << 8
WORKERS = 1 << 6
EPOCHS = 1 << 10


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a routing id. `node` below `NODES`, `worker` below `WORKERS`, `epoch` below `EPOCHS`."""

    node: int
    worker: int
    epoch: int

    def __post_init__(self) -> None:
        for name, number, end in (
            ("node", self.node, NODES),
            ("worker", self.worker, WORKERS),
            ("epoch", self.epoch, EPOCHS),
        ):
            if not 0 <= number < end:
                raise ValueError(f"{name} {number} is not in the range 0 to {end - 1}")

    @property
    def routing_id(self) -> bytes:
        """3 bytes."""
        number = (self.node * WORKERS + self.worker) * EPOCHS + self.epoch
        return number.to_bytes(ROUTING_ID_SIZE, "big")


def owner_of(routing_id: bytes) -> Owner:
    """Owner that a routing id of 3 bytes names; every one names somebody.

    Raises:
        ValueError: another size.
    """
    if len(routing_id) != ROUTING_ID_SIZE:
        raise ValueError(f"a routing id of {len(routing_id)} bytes")
    number = int.from_bytes(routing_id, "big")
    return Owner(number // (WORKERS * EPOCHS), number // EPOCHS % WORKERS, number % EPOCHS)


def draw(node: int, worker: int, dice: int, taken: Collection[bytes]) -> bytes:
    """Routing id for a process that starts: the epoch that `dice` (any number, at random) points at.

    If one of the routing ids that live on this node has it, the next free one is taken.

    Raises:
        ValueError: a node or worker out of range, or every epoch of this worker is taken.
    """
    for step in range(EPOCHS):
        routing_id = Owner(node, worker, (dice + step) % EPOCHS).routing_id
        if routing_id not in taken:
            return routing_id
    raise ValueError(f"worker {worker} has no free epoch")
