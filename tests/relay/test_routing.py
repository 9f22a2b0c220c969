"""Routing ids: the layout as literal bytes, then what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_server.routing import EPOCHS, NODES, WORKERS, Owner, draw, owner_of

nodes = st.integers(0, NODES - 1)
workers = st.integers(0, WORKERS - 1)
epochs = st.integers(0, EPOCHS - 1)


@pytest.mark.parametrize(
    ("owner", "routing_id"),
    [
        (Owner(0, 0, 0), "000000"),
        (Owner(0, 0, 1), "000001"),
        (Owner(0, 1, 0), "000400"),
        (Owner(1, 0, 0), "010000"),
        (Owner(0xAB, 0b100001, 0b1000000001), "ab8601"),
        (Owner(255, 63, 1023), "ffffff"),
    ],
)
def test_layout(owner: Owner, routing_id: str) -> None:
    assert owner.routing_id.hex() == routing_id
    assert owner_of(bytes.fromhex(routing_id)) == owner


@given(nodes, workers, epochs)
def test_every_owner_comes_back_and_begins_with_its_node(node: int, worker: int, epoch: int) -> None:
    owner = Owner(node, worker, epoch)
    assert owner_of(owner.routing_id) == owner
    assert owner.routing_id[0] == node


@given(st.binary(min_size=3, max_size=3))
def test_every_routing_id_has_an_owner(routing_id: bytes) -> None:
    assert owner_of(routing_id).routing_id == routing_id


@pytest.mark.parametrize("size", [0, 2, 4])
def test_other_sizes_have_none(size: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        owner_of(bytes(size))


@pytest.mark.parametrize("owner", [(NODES, 0, 0), (-1, 0, 0), (0, WORKERS, 0), (0, -1, 0), (0, 0, EPOCHS), (0, 0, -1)])
def test_numbers_out_of_range(owner: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="not in the range"):
        Owner(*owner)


@given(nodes, st.lists(st.tuples(workers, st.integers(0, 1 << 40)), max_size=100))
def test_never_two_alike_on_a_node(node: int, starts: list[tuple[int, int]]) -> None:
    taken: set[bytes] = set()
    for worker, dice in starts:
        routing_id = draw(node, worker, dice, taken)
        assert routing_id not in taken
        owner = owner_of(routing_id)
        assert (owner.node, owner.worker) == (node, worker)
        taken.add(routing_id)


def test_a_full_worker_says_so() -> None:
    taken = {Owner(7, 3, epoch).routing_id for epoch in range(EPOCHS)}
    with pytest.raises(ValueError, match="no free epoch"):
        draw(7, 3, 5, taken)
    draw(7, 4, 5, taken)
    taken.remove(Owner(7, 3, 4).routing_id)  # the last one that it looks at
    assert owner_of(draw(7, 3, 5, taken)).epoch == 4


def test_the_epoch_is_as_the_dice_say() -> None:
    assert owner_of(draw(1, 2, 1000, ())).epoch == 1000
    assert owner_of(draw(1, 2, EPOCHS + 5, ())).epoch == 5
