"""Runs known-answer files (schema ``hybrid-vectors/1``) through the very functions that client and phone use.

A case either gives the expected `out`, or is an invalid input that passes only when a documented `HybridError` refuses
it: any other exception is a failure. `tests/vectors/README.md` describes the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hybrid import cbor
from hybrid.errors import HybridError
from hybrid.protocol import eid, frames, handshake, linking, tunnel
from hybrid.protocol import keys as key_math
from hybrid.protocol.contact import ClientPayload
from hybrid.protocol.ctap import PostHandshake, pad_revision_0, unpad_revision_0
from hybrid.protocol.noise import Initiator, Pattern, Responder, TrafficKeys
from hybrid.protocol.qr import QrInvitation, Transport, decode_digits, encode_digits

SCHEMA = "hybrid-vectors/1"
SKIPPED_OPS = frozenset({"transport.seal_legacy"})  # a retired construction that no current peer speaks

Fields = Mapping[str, Any]
Operation = Callable[[Fields, Fields], dict[str, Any]]
"""Takes a case's `in` and `out` (the latter only for the texts of a transcript), gives what we compute."""


class BadVectorFile(HybridError, ValueError):
    """The file is not of this schema."""

    @property
    def identifier(self) -> str:
        return "vectors.file"


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that came out wrong: its id, operation, and what was expected and got, as text."""

    id: str
    op: str
    expected: str
    got: str


@dataclass(slots=True)
class Count:
    """Cases of one operation."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Report:
    """Outcome of one file."""

    file: str
    ops: dict[str, Count] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    wrong_skips: int = 0

    @property
    def ok(self) -> bool:
        """Whether every case passed, apart from optional ones that may be skipped; a file without a case fails."""
        return bool(self.ops) and not self.failures and not self.wrong_skips

    def total(self) -> Count:
        counts = self.ops.values()
        return Count(
            sum(count.passed for count in counts),
            sum(count.failed for count in counts),
            sum(count.skipped for count in counts),
        )


def run_document(document: object, file: str) -> Report:
    """Run every case of a parsed file. Raises `BadVectorFile`."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadVectorFile(f"{file} is not a file of the schema {SCHEMA}")
    cases = document.get("cases")
    if not isinstance(cases, list) or not all(isinstance(case, dict) and "op" in case for case in cases):
        raise BadVectorFile(f"{file} has no list of cases")
    report = Report(file)
    for case in cases:
        _run_case(case, report)
    return report


def _run_case(case: Fields, report: Report) -> None:
    op = str(case["op"])
    count = report.ops.setdefault(op, Count())
    operation = OPERATIONS.get(op)
    if operation is None:
        count.skipped += 1
        if op not in SKIPPED_OPS or case.get("optional") is not True:
            report.wrong_skips += 1
        return
    expected = _render(case["out"]) if "out" in case else "a documented refusal"
    try:
        out = case.get("out", {})
        computed = operation(case["in"], out)
        got = _render({name: computed[name] for name in out if name in computed} if "out" in case else computed)
        passed = "out" in case and all(name in computed and computed[name] == out[name] for name in out)
    except HybridError as error:
        got = f"{type(error).__name__}: {error}"
        passed = "error" in case
    except Exception as error:  # this border exists to show such an exception as a failure of its case
        got = f"undocumented {type(error).__name__}: {error}"
        passed = False
    if passed:
        count.passed += 1
    else:
        count.failed += 1
        report.failures.append(Failure(str(case.get("id", op)), op, expected, got))


def _render(value: object) -> str:
    return repr(value)


# --- helpers ----------------------------------------------------------------------------------------------------------


def _raw(fields: Fields, name: str) -> bytes:
    return bytes.fromhex(fields[name])


def _private(fields: Fields, name: str) -> key_math.PrivateKey:
    return key_math.private_key(_raw(fields, name))


def _keys_out(keys: TrafficKeys) -> dict[str, str]:
    return {
        "handshake_hash": keys.handshake_hash.hex(),
        "key_c2a": keys.client_to_phone.hex(),
        "key_a2c": keys.phone_to_client.hex(),
    }


# --- code, derivations, adverts ---------------------------------------------------------------------------------------


def _digits_encode(given: Fields, _: Fields) -> dict[str, Any]:
    return {"digits": encode_digits(_raw(given, "data"))}


def _digits_decode(given: Fields, _: Fields) -> dict[str, Any]:
    return {"data": decode_digits(given["digits"]).hex()}


def _invitation(given: Fields, public_key: key_math.PublicKey, secret: bytes) -> QrInvitation:
    transports = given["transports"]
    return QrInvitation(
        public_key=public_key,
        secret=secret,
        known_domains=given["known_domains"],
        timestamp=given["timestamp"],
        state_assisted=given["state_assisted"],
        hint_text=given["hint"],
        transports=tuple(Transport(number) for number in transports or (0,)),
        transports_stated=transports is not None,
        extra=tuple((key, value) for key, value in given.get("extra", ())),
    )


def _qr_encode(given: Fields, _: Fields) -> dict[str, Any]:
    public_key = key_math.parse_compressed_point(_raw(given, "public_key"))
    qr = _invitation(given, public_key, _raw(given, "secret"))
    return {"cbor": qr.to_cbor().hex(), "url": qr.url}


def _qr_decode(given: Fields, _: Fields) -> dict[str, Any]:
    qr = QrInvitation.parse(given["url"])
    return {
        "public_key": key_math.compressed(qr.public_key).hex(),
        "public_key_x962": key_math.uncompressed(qr.public_key).hex(),
        "secret": qr.secret.hex(),
        "known_domains": qr.known_domains or 0,
        "timestamp": qr.timestamp,
        "state_assisted": qr.state_assisted,
        "hint_raw": qr.hint_text,
        "hint": qr.hint.value,
        "transports": list(qr.transports),
    }


def _derive(given: Fields, _: Fields) -> dict[str, Any]:
    okm = key_math.derive(_raw(given, "ikm"), _raw(given, "salt"), given["purpose"], given["length"])
    return {"okm": okm.hex()}


def _eid_pack(given: Fields, _: Fields) -> dict[str, Any]:
    place = eid.Eid(_raw(given, "nonce"), _raw(given, "routing_id"), given["tunnel_service_id"])
    return {"plaintext": place.pack().hex()}


def _advert_encrypt(given: Fields, _: Fields) -> dict[str, Any]:
    return {"service_data": eid.seal(_raw(given, "plaintext"), _raw(given, "eid_key")).hex()}


class _NotOurs(HybridError):
    """A stranger's advert: no error to the client, but the refusal that a vector asks for."""


def _opened(given: Fields) -> bytes:
    plaintext = eid.trial_open(_raw(given, "service_data"), _raw(given, "eid_key"))
    if plaintext is None:
        raise _NotOurs("the advert does not open with this key")
    return plaintext


def _advert_decrypt(given: Fields, _: Fields) -> dict[str, Any]:
    plaintext = _opened(given)
    place = eid.Eid.unpack(plaintext)
    return {
        "plaintext": plaintext.hex(),
        "nonce": place.nonce.hex(),
        "routing_id": place.routing_id.hex(),
        "tunnel_service_id": place.tunnel_service_id,
        "suffix": eid.suffix_of(_raw(given, "service_data")).hex(),
    }


def _advert_decrypt_linked(given: Fields, _: Fields) -> dict[str, Any]:
    return {"plaintext": _opened(given).hex()}


def _advert_suffix(given: Fields, _: Fields) -> dict[str, Any]:
    return {"psm": eid.parse_suffix(_raw(given, "suffix"))}


# --- tunnel service ---------------------------------------------------------------------------------------------------


def _tunnel_domain(given: Fields, _: Fields) -> dict[str, Any]:
    return {"domain": tunnel.tunnel_domain(given["id"])}


def _target(given: Fields) -> tunnel.Target:
    match given["kind"]:
        case "new":
            return tunnel.New(_raw(given, "tunnel_id"))
        case "connect":
            return tunnel.Connect(_raw(given, "routing_id"), _raw(given, "tunnel_id"))
        case _:
            return tunnel.Contact(_raw(given, "contact_id"))


def _tunnel_url(given: Fields, _: Fields) -> dict[str, Any]:
    return {"url": tunnel.TunnelRequest(given["domain"], _target(given)).url}


def _tunnel_path(given: Fields, _: Fields) -> dict[str, Any]:
    match tunnel.parse_path(given["path"]):
        case tunnel.New(tunnel_id):
            return {"kind": "new", "tunnel_id": tunnel_id.hex()}
        case tunnel.Connect(routing_id, tunnel_id):
            return {"kind": "connect", "routing_id": routing_id.hex(), "tunnel_id": tunnel_id.hex()}
        case tunnel.Contact(contact_id):
            return {"kind": "contact", "contact_id": contact_id.hex()}


def _client_payload_encode(given: Fields, _: Fields) -> dict[str, Any]:
    payload = ClientPayload(_raw(given, "link_id"), _raw(given, "client_nonce"), given["hint"])
    return {"cbor": payload.to_cbor().hex(), "header": payload.to_header()}


def _client_payload_decode(given: Fields, _: Fields) -> dict[str, Any]:
    payload = ClientPayload.parse_header(given["header"])
    return {"link_id": payload.link_id.hex(), "client_nonce": payload.client_nonce.hex(), "hint": payload.hint}


# --- handshakes -------------------------------------------------------------------------------------------------------


def _link(given: Fields, public_key: key_math.PublicKey) -> linking.Link:
    return linking.Link(
        contact_id=_raw(given, "contact_id"),
        link_id=_raw(given, "link_id"),
        link_secret=_raw(given, "link_secret"),
        public_key=public_key,
        name="",
        tunnel_service_id=given["tunnel_service_id"],
    )


def _noise(pattern: Pattern, prologue: bytes, side: str) -> Operation:
    """Both sides, back to back; `side` is the one whose static key is known beforehand."""

    def run(given: Fields, _: Fields) -> dict[str, Any]:
        trace: list[dict[str, str | None]] = []

        def observe(step: str, h: bytes, ck: bytes, k: bytes | None) -> None:
            trace.append({"step": step, "h": h.hex(), "ck": ck.hex(), "k": k.hex() if k is not None else None})

        static_private = _private(given, f"{side}_static_private")
        static_public = key_math.parse_point(_raw(given, f"{side}_static_public"))
        ours_initiates = side == "initiator"
        initiator = Initiator(
            pattern,
            prologue=prologue,
            psk=_raw(given, "psk"),
            static=static_private if ours_initiates else static_public,
            ephemeral=_private(given, "initiator_ephemeral_private"),
        )
        responder = Responder(
            pattern,
            prologue=prologue,
            psk=_raw(given, "psk"),
            static=static_public if ours_initiates else static_private,
            ephemeral=_private(given, "responder_ephemeral_private"),
            observer=observe,
        )
        message_1 = initiator.write_message_1()
        message_2, phone_keys = responder.answer(message_1)
        client_keys = initiator.read_message_2(message_2)
        if client_keys != phone_keys:
            return {"message1": message_1.hex(), "message2": "the two sides disagree"}
        return {
            "message1": message_1.hex(),
            "message2": message_2.hex(),
            "trace": trace,
            **_keys_out(client_keys),
        }

    return run


def _responder_accepts(given: Fields, _: Fields) -> dict[str, Any]:
    responder = Responder(
        Pattern.KN_PSK0,
        prologue=handshake.PROLOGUE_QR,
        psk=_raw(given, "psk"),
        static=key_math.parse_point(_raw(given, "initiator_static_public")),
        ephemeral=_private(given, "responder_ephemeral_private"),
    )
    message_2, keys = responder.answer(_raw(given, "message1"))
    return {"message2": message_2.hex(), **_keys_out(keys)}


def _nk_read_1(given: Fields, _: Fields) -> dict[str, Any]:
    responder = Responder(
        Pattern.NK_PSK0,
        prologue=handshake.PROLOGUE_LINK,
        psk=_raw(given, "psk"),
        static=_private(given, "responder_static_private"),
        ephemeral=_private(given, "responder_ephemeral_private"),
    )
    message_2, keys = responder.answer(_raw(given, "message1"))
    return {"message2": message_2.hex(), **_keys_out(keys)}


def _kn_read_2(given: Fields, _: Fields) -> dict[str, Any]:
    return _read_2(Pattern.KN_PSK0, handshake.PROLOGUE_QR, _private(given, "initiator_static_private"), given)


def _nk_read_2(given: Fields, _: Fields) -> dict[str, Any]:
    static = key_math.parse_point(_raw(given, "responder_static_public"))
    return _read_2(Pattern.NK_PSK0, handshake.PROLOGUE_LINK, static, given)


def _read_2(
    pattern: Pattern, prologue: bytes, static: key_math.PrivateKey | key_math.PublicKey, given: Fields
) -> dict[str, Any]:
    initiator = Initiator(
        pattern,
        prologue=prologue,
        psk=_raw(given, "psk"),
        static=static,
        ephemeral=_private(given, "initiator_ephemeral_private"),
    )
    initiator.write_message_1()
    return _keys_out(initiator.read_message_2(_raw(given, "message2")))


# --- encrypted messages -----------------------------------------------------------------------------------------------


def _pad(given: Fields, _: Fields) -> dict[str, Any]:
    return {"padded": frames.pad(_raw(given, "data")).hex()}


def _unpad(given: Fields, _: Fields) -> dict[str, Any]:
    return {"data": frames.unpad(_raw(given, "padded")).hex()}


def _seal(given: Fields, _: Fields) -> dict[str, Any]:
    plaintext = _raw(given, "plaintext")
    sealer = frames.Sealer(_raw(given, "key"), given["counter"])
    return {
        "padded": frames.pad(plaintext).hex(),
        "nonce": frames.nonce(given["counter"]).hex(),
        "ciphertext": sealer.seal(plaintext).hex(),
    }


def _open(given: Fields, _: Fields) -> dict[str, Any]:
    opener = frames.Opener(_raw(given, "key"), given["counter"])
    return {"plaintext": opener.open(_raw(given, "ciphertext")).hex()}


def _frame_encode(given: Fields, _: Fields) -> dict[str, Any]:
    frame = frames.Frame(frames.MessageType(given["type"]), _raw(given, "payload"))
    return {"frame": frame.encode().hex()}


def _frame_decode(given: Fields, _: Fields) -> dict[str, Any]:
    frame = frames.Frame.decode(_raw(given, "frame"))
    return {"type": int(frame.type), "payload": frame.payload.hex()}


def _post_handshake(given: Fields, _: Fields) -> dict[str, Any]:
    message = PostHandshake.decode(_raw(given, "cbor"))
    return {
        "features": list(message.features),
        "get_info": message.get_info.hex() if message.get_info is not None else None,
        "linking": cbor.encode(message.linking).hex() if message.linking is not None else None,
    }


def _revision_0_pad(given: Fields, _: Fields) -> dict[str, Any]:
    return {"padded": pad_revision_0(_raw(given, "cbor")).hex()}


def _revision_0_unpad(given: Fields, _: Fields) -> dict[str, Any]:
    return {"cbor": unpad_revision_0(_raw(given, "padded")).hex()}


def _l2cap_split(given: Fields, _: Fields) -> dict[str, Any]:
    messages, rest = frames.split_stream(_raw(given, "stream"))
    return {"messages": [message.hex() for message in messages], "rest": rest.hex()}


# --- linking ----------------------------------------------------------------------------------------------------------


def _linking_mac(given: Fields, _: Fields) -> dict[str, Any]:
    public_key = key_math.parse_point(_raw(given, "public"))
    return {"mac": linking.proof(_private(given, "private"), public_key, _raw(given, "handshake_hash")).hex()}


def _linking_verify(given: Fields, _: Fields) -> dict[str, Any]:
    link = linking.verify_linking_map(
        cbor.decode_map(_raw(given, "linking")),
        _private(given, "client_identity_private"),
        _raw(given, "handshake_hash"),
        tunnel_service_id=0,
    )
    return {
        "contact_id": link.contact_id.hex(),
        "link_id": link.link_id.hex(),
        "link_secret": link.link_secret.hex(),
        "public_key": key_math.uncompressed(link.public_key).hex(),
        "name": link.name,
    }


# --- whole sessions ---------------------------------------------------------------------------------------------------


def _transcript(keys: TrafficKeys, expected: Fields, identity: key_math.PrivateKey | None) -> list[Fields]:
    """Seal every message of the expected transcript ourselves, open the result, and check a linking map's proof."""
    sealers = {"client": frames.Sealer(keys.client_to_phone), "phone": frames.Sealer(keys.phone_to_client)}
    openers = {"client": frames.Opener(keys.client_to_phone), "phone": frames.Opener(keys.phone_to_client)}
    counters = {"client": 0, "phone": 0}
    messages: list[Fields] = []
    for message in expected.get("messages", ()):
        sender, plaintext = message["sender"], bytes.fromhex(message["plaintext"])
        ciphertext = sealers[sender].seal(plaintext)
        opened = openers[sender].open(ciphertext)
        frame_type: int | None = None
        if message["frame_type"] is None:
            PostHandshake.decode(opened)
        else:
            frame = frames.Frame.decode(opened)
            frame_type = int(frame.type)
            if frame.type is frames.MessageType.UPDATE and identity is not None:
                fields = linking.decode_update(frame.payload)
                if fields is not None:
                    linking.verify_linking_map(fields, identity, keys.handshake_hash, tunnel_service_id=0)
        messages.append(
            {
                "sender": sender,
                "frame_type": frame_type,
                "counter": counters[sender],
                "plaintext": opened.hex(),
                "ciphertext": ciphertext.hex(),
            }
        )
        counters[sender] += 1
    return messages


def _session_qr(given: Fields, expected: Fields) -> dict[str, Any]:
    identity = _private(given, "client_identity_private")
    qr = QrInvitation.parse(_invitation(given, identity.public_key(), _raw(given, "qr_secret")).url)
    place = eid.Eid(_raw(given, "advert_nonce"), _raw(given, "routing_id"), given["tunnel_service_id"])
    plaintext = place.pack()
    service_data = eid.seal(plaintext, qr.eid_key())
    heard = eid.trial_open(service_data, qr.eid_key())
    if heard is None:
        raise _NotOurs("the session's own advert does not open")
    domain = tunnel.tunnel_domain(place.tunnel_service_id)
    client = handshake.qr_client(qr, heard, identity=identity, ephemeral=_private(given, "client_ephemeral_private"))
    phone = handshake.qr_phone(qr, plaintext, ephemeral=_private(given, "phone_ephemeral_private"))
    message_1 = client.write_message_1()
    message_2, _ = phone.answer(message_1)
    keys = client.read_message_2(message_2)
    return {
        "qr_url": qr.url,
        "eid_key": qr.eid_key().hex(),
        "tunnel_id": qr.tunnel_id().hex(),
        "advert_plaintext": plaintext.hex(),
        "service_data": service_data.hex(),
        "domain": domain,
        "connect_url": tunnel.TunnelRequest(domain, tunnel.Connect(place.routing_id, qr.tunnel_id())).url,
        "new_url": tunnel.TunnelRequest(domain, tunnel.New(qr.tunnel_id())).url,
        "psk": qr.psk(plaintext).hex(),
        "message1": message_1.hex(),
        "message2": message_2.hex(),
        **_keys_out(keys),
        "messages": _transcript(keys, expected, identity),
    }


def _session_state_assisted(given: Fields, expected: Fields) -> dict[str, Any]:
    identity = _private(given, "phone_identity_private")
    link = _link(given, identity.public_key())
    payload = ClientPayload(link.link_id, _raw(given, "client_nonce"), given["hint"])
    plaintext = _raw(given, "advert_plaintext")
    eid_key = link.eid_key(payload.client_nonce)
    service_data = eid.seal(plaintext, eid_key)
    heard = eid.trial_open(service_data, eid_key)
    if heard is None:
        raise _NotOurs("the session's own advert does not open")
    client = handshake.link_client(link, heard, ephemeral=_private(given, "client_ephemeral_private"))
    phone = handshake.link_phone(
        link, plaintext, identity=identity, ephemeral=_private(given, "phone_ephemeral_private")
    )
    message_1 = client.write_message_1()
    message_2, _ = phone.answer(message_1)
    keys = client.read_message_2(message_2)
    domain = tunnel.tunnel_domain(link.tunnel_service_id)
    return {
        "contact_url": tunnel.TunnelRequest(domain, tunnel.Contact(link.contact_id)).url,
        "client_payload": payload.to_cbor().hex(),
        "client_payload_header": payload.to_header(),
        "eid_key": eid_key.hex(),
        "service_data": service_data.hex(),
        "domain": domain,
        "psk": link.psk(plaintext).hex(),
        "message1": message_1.hex(),
        "message2": message_2.hex(),
        **_keys_out(keys),
        "messages": _transcript(keys, expected, None),
    }


def _session_client_view(given: Fields, _: Fields) -> dict[str, Any]:
    identity = _private(given, "client_identity_private")
    qr = QrInvitation(public_key=identity.public_key(), secret=_raw(given, "qr_secret"))
    plaintext = eid.trial_open(_raw(given, "service_data"), qr.eid_key())
    if plaintext is None:
        raise _NotOurs("the advert does not open with this code")
    place = eid.Eid.unpack(plaintext)
    client = handshake.qr_client(
        qr, plaintext, identity=identity, ephemeral=_private(given, "client_ephemeral_private")
    )
    message_1 = client.write_message_1()
    keys = client.read_message_2(_raw(given, "message2"))
    opener = frames.Opener(keys.phone_to_client)
    sealer = frames.Sealer(keys.client_to_phone)
    return {
        "domain": tunnel.tunnel_domain(place.tunnel_service_id),
        "tunnel_id": qr.tunnel_id().hex(),
        "eid_key": qr.eid_key().hex(),
        "advert_plaintext": plaintext.hex(),
        "psk": qr.psk(plaintext).hex(),
        "message1": message_1.hex(),
        **_keys_out(keys),
        "phone_plaintexts": [opener.open(bytes.fromhex(text)).hex() for text in given["from_phone"]],
        "client_ciphertexts": [sealer.seal(bytes.fromhex(text)).hex() for text in given["client_plaintexts"]],
    }


OPERATIONS: Mapping[str, Operation] = {
    "digits.encode": _digits_encode,
    "digits.decode": _digits_decode,
    "qr.encode": _qr_encode,
    "qr.decode": _qr_decode,
    "derive": _derive,
    "eid.pack": _eid_pack,
    "advert.encrypt": _advert_encrypt,
    "advert.decrypt": _advert_decrypt,
    "advert.decrypt_linked": _advert_decrypt_linked,
    "advert.suffix": _advert_suffix,
    "tunnel.domain": _tunnel_domain,
    "tunnel.url": _tunnel_url,
    "tunnel.path": _tunnel_path,
    "noise.kn": _noise(Pattern.KN_PSK0, handshake.PROLOGUE_QR, "initiator"),
    "noise.kn.read1": _responder_accepts,
    "noise.kn.read2": _kn_read_2,
    "noise.kn.responder_accepts": _responder_accepts,
    "noise.nk": _noise(Pattern.NK_PSK0, handshake.PROLOGUE_LINK, "responder"),
    "noise.nk.read1": _nk_read_1,
    "noise.nk.read2": _nk_read_2,
    "pad": _pad,
    "unpad": _unpad,
    "transport.seal": _seal,
    "transport.open": _open,
    "frame.encode": _frame_encode,
    "frame.decode": _frame_decode,
    "post_handshake.decode": _post_handshake,
    "rev0.pad": _revision_0_pad,
    "rev0.unpad": _revision_0_unpad,
    "linking.mac": _linking_mac,
    "linking.verify": _linking_verify,
    "client_payload.encode": _client_payload_encode,
    "client_payload.decode": _client_payload_decode,
    "session.qr": _session_qr,
    "session.state_assisted": _session_state_assisted,
    "session.client_view": _session_client_view,
    "l2cap.split": _l2cap_split,
}
