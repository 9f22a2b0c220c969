"""Whatever comes in, an authenticator answers with a status that the specification has, or with canonical CBOR."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fido2.ctap import CtapError
from fido2.hid import CTAPHID
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.fido2_bridge.software_device import SoftwareCtapDevice
from hybrid.passkeys.profiles import PHONE, ROAMING, Profile

pytestmark = pytest.mark.slow  # together they take a tenth of the time that make fast has

STATUSES = {int(code) for code in CtapError.ERR}
_PLAIN = st.none() | st.booleans() | st.integers(-300, 300) | st.binary(max_size=40) | st.text(max_size=8)
_VALUES = st.recursive(
    _PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "type", "alg", 1, 2, -1]), inner)
    ),
    max_leaves=6,
)
_MAPS = st.dictionaries(st.integers(0, 12), _VALUES, max_size=8)


@pytest.fixture(scope="module", params=[ROAMING, PHONE], ids=["roaming", "phone"])
def device(request: pytest.FixtureRequest) -> Iterator[SoftwareCtapDevice]:
    profile: Profile = request.param
    with SoftwareCtapDevice(profile=profile, pin="1234" if profile is ROAMING else None) as made:
        yield made


@settings(max_examples=300, deadline=None)
@given(
    command=st.sampled_from([*range(0x0E), 0x40, 0xFF]),
    payload=st.binary(max_size=80) | _MAPS.map(cbor.encode),
)
def test_any_request_gets_an_answer(device: SoftwareCtapDevice, command: int, payload: bytes) -> None:
    answer = device.call(CTAPHID.CBOR, bytes([command]) + payload)
    assert answer[0] in STATUSES
    if len(answer) > 1:
        assert answer[0] == 0
        assert cbor.encode(cbor.decode(answer[1:])) == answer[1:]
