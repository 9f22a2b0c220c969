"""Every algorithm: the COSE key carries the number that was asked for, and python-fido2 verifies the signatures."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from fido2.cose import CoseKey, UnsupportedKey

from hybrid import cbor
from hybrid.errors import VaultError
from hybrid.passkeys import algorithms
from hybrid.passkeys.store import MemoryStore
from tests.passkeys.rig import HASH, PEER, counting_random, create, phone, sign_in
from tests.passkeys.roaming_rig import roaming

MESSAGE = b"signed"
MEMBERS = {1: {1, 3, -1, -2}, 2: {1, 3, -1, -2, -3}, 3: {1, 3, -1, -2}, 7: {1, 3, -1}}


@pytest.mark.parametrize("algorithm", algorithms.EVERY)
def test_signature_and_key(algorithm: int) -> None:
    private_key = algorithms.new_private_key(algorithm, counting_random())
    cose_key = algorithms.cose_key(algorithm, private_key)
    assert cose_key[3] == algorithm
    assert set(cose_key) == MEMBERS[cose_key[1]]
    key = CoseKey.parse(cose_key)
    assert not isinstance(key, UnsupportedKey)
    signature = algorithms.sign(algorithm, private_key, MESSAGE)
    key.verify(MESSAGE, signature)
    with pytest.raises(InvalidSignature):
        key.verify(MESSAGE + b".", signature)


SIZES = {-48: (1312, 2420, 54), -49: (1952, 3309, 54)}


@pytest.mark.parametrize("algorithm", [number for number in SIZES if number in algorithms.EVERY])
def test_lattice_sizes(algorithm: int) -> None:
    private_key = algorithms.new_private_key(algorithm, counting_random())
    public_key = algorithms.cose_key(algorithm, private_key)[-1]
    assert (len(public_key), len(algorithms.sign(algorithm, private_key, b"")), len(private_key)) == SIZES[algorithm]


def test_keys_come_from_the_dice() -> None:
    for algorithm in (number for number in algorithms.EVERY if number != algorithms.RS256):
        one, same = (algorithms.new_private_key(algorithm, counting_random()) for _ in range(2))
        random = counting_random()
        random(1)
        other = algorithms.new_private_key(algorithm, random)
        assert one == same != other


@pytest.mark.parametrize("algorithm", [-7, -8, -257, -1])
def test_a_key_of_another_kind_is_refused(algorithm: int) -> None:
    wrong = algorithms.new_private_key(algorithms.ES384, counting_random())
    for key in (wrong, b"", b"\x30\x00"):
        with pytest.raises(VaultError):
            algorithms.sign(algorithm, key, MESSAGE)


async def test_m4_the_first_enabled_of_the_list_is_taken() -> None:
    wanted = [{"alg": alg, "type": "public-key"} for alg in (-35, -65535, -9, -7)]
    for more, expected in ((False, -9), (True, -35)):
        answer = await phone(MemoryStore(), more_algorithms=more).call(create(m4=wanted), peer=PEER)
        assert answer[0] == 0
        assert cbor.encode({3: expected})[1:] in answer


@pytest.mark.parametrize("algorithm", algorithms.STANDARD)
async def test_passkeys_of_every_standard_algorithm_sign_in(algorithm: int) -> None:
    for make in (phone, roaming):
        store = MemoryStore()
        authenticator = make(store)
        request = create(m4=[{"alg": algorithm, "type": "public-key"}], m7={"rk": True})
        assert (await authenticator.call(request, peer=PEER))[0] == 0
        answer = await authenticator.call(sign_in(), peer=PEER)
        assert answer[0] == 0
        fields = cbor.decode_map(answer[1:])
        (credential,) = store.credentials()
        key = CoseKey.parse(algorithms.cose_key(algorithm, credential.private_key))
        key.verify(fields[2] + HASH, fields[3])
