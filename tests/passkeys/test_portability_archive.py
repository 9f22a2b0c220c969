"""Zip archives around exports, and archives that are none, or too much."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys import archive
from hybrid.passkeys.archive import unpacked


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return buffer.getvalue()


def problem_of(data: bytes) -> PortabilityProblem:
    with pytest.raises(PortabilityError) as caught:
        unpacked(data)
    return caught.value.reason


@pytest.mark.parametrize("name", ["data.json", "CXP-Export/index.JSON", "../../../etc/passwd.json"])
def test_the_one_document_is_read_whatever_its_name(name: str) -> None:
    assert unpacked(packed({name: b'{"a": 1}', "attachments/x/y.png": b"x"})) == b'{"a": 1}'


def test_what_is_no_archive_is_left_as_it_is() -> None:
    assert unpacked(b"{}") == b"{}"
    assert unpacked(b"") == b""


def test_archives_without_one_document() -> None:
    assert problem_of(packed({"CXP-Export/index.jwe": b"x"})) is PortabilityProblem.ENCRYPTED
    assert problem_of(packed({"export.data": b"x", "files/x": b""})) is PortabilityProblem.FORMAT  # of 1Password
    assert problem_of(packed({"a.json": b"{}", "b.json": b"{}"})) is PortabilityProblem.FORMAT


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILE_SIZE", 1 << 20)
    bomb = packed({"data.json": bytes(64 << 20)})
    assert len(bomb) < 1 << 20
    assert problem_of(bomb) is PortabilityProblem.TOO_LARGE
    lying = bomb.replace(struct.pack("<I", 64 << 20), struct.pack("<I", 5))
    assert problem_of(lying) in (PortabilityProblem.TOO_LARGE, PortabilityProblem.MALFORMED)


def test_many_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MAX_MEMBERS", 3)
    assert problem_of(packed({f"{n}.json": b"" for n in range(4)})) is PortabilityProblem.TOO_LARGE


def test_encrypted_and_oddly_packed_members_are_one_error() -> None:
    data = packed({"data.json": b"{}"}, zipfile.ZIP_STORED)
    central = data.index(b"PK\x01\x02")
    encrypted = data[:6] + b"\x01" + data[7 : central + 8] + b"\x01" + data[central + 9 :]
    assert problem_of(encrypted) is PortabilityProblem.MALFORMED
    method = data[:8] + b"\x63" + data[9 : central + 10] + b"\x63" + data[central + 11 :]
    assert problem_of(method) is PortabilityProblem.MALFORMED


def test_every_flipped_byte_is_refused_or_harmless() -> None:
    data = packed({"data.json": b'{"encrypted": false}'})
    for place in range(4, len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        try:
            assert unpacked(damaged) == b'{"encrypted": false}'
        except PortabilityError:
            continue


@given(st.binary(max_size=300))
def test_any_bytes_are_a_document_or_one_error(rest: bytes) -> None:
    try:
        unpacked(b"PK\x03\x04" + rest)
    except PortabilityError:
        pass
