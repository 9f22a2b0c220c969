"""python-fido2's `WebAuthnClient` over a hybrid session: one command on the wire per ceremony.

python-fido2's own `Fido2Client` does not suit phones: it refuses a getInfo with `uv` and no PIN protocol, spends silent
commands on lists, and falls back to CTAP1. This one asks once, with `uv`, and judges RP ids and answers by
`hybrid.fido2_bridge.rp_id` and `.ceremony`, whatever collector it is given.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from threading import Event
from typing import Any, TypeVar

from fido2.client import AssertionSelection, ClientDataCollector, WebAuthnClient
from fido2.ctap2.base import AssertionResponse
from fido2.ctap2.extensions import (
    AuthenticatorExtensionsLargeBlobOutputs,
    AuthenticatorExtensionsPRFOutputs,
    AuthenticatorExtensionsPRFValues,
    CredentialPropertiesOutput,
)
from fido2.webauthn import (
    AttestationObject,
    AuthenticationExtensionsClientOutputs,
    AuthenticatorAttachment,
    AuthenticatorAttestationResponse,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialCreationOptions,
    PublicKeyCredentialRequestOptions,
    RegistrationResponse,
)

from hybrid.errors import RefusalReason, RemoteProtocolError, RequestRefused
from hybrid.fido2_bridge.ceremony import (
    CREATE,
    GET,
    Assertion,
    AssertionPlan,
    RegistrationPlan,
    client_data_json,
)
from hybrid.fido2_bridge.device import CtapSession, HybridCtapDevice
from hybrid.fido2_bridge.extensions import assertion_extensions, registration_extensions
from hybrid.fido2_bridge.options import read_assertion_options, read_registration_options
from hybrid.fido2_bridge.rp_id import check_rp_id, parse_origin

_Options = PublicKeyCredentialCreationOptions | PublicKeyCredentialRequestOptions
_Type = TypeVar("_Type", PublicKeyCredentialCreationOptions, PublicKeyCredentialRequestOptions)
_View = TypeVar("_View", AuthenticatorData, AttestationObject)


class HybridClientDataCollector(ClientDataCollector):
    """Collects client data for one `origin`, normalised; RP ids are judged by our own rules.

    Raises:
        RequestRefused: not an origin, or not https and not localhost.
    """

    def __init__(self, origin: str) -> None:
        self._origin = parse_origin(origin)

    def collect_client_data(self, options: _Options) -> tuple[CollectedClientData, str]:
        """Give client data and RP id for `options`. Raises `RequestRefused`."""
        creating = isinstance(options, PublicKeyCredentialCreationOptions)
        rp_id = options.rp.id if isinstance(options, PublicKeyCredentialCreationOptions) else options.rp_id
        origin = str(self._origin)
        checked = check_rp_id(self._origin.host if rp_id is None else rp_id, origin)
        data = client_data_json(CREATE if creating else GET, options.challenge, origin)
        return CollectedClientData(data), checked


class HybridWebAuthnClient(WebAuthnClient):
    """Registers and signs in with the phone behind `session`. Call it from a worker thread.

    Making one sends nothing. Ceremonies raise `RequestRefused` before and `ResponseRejected` or `RemoteProtocolError`
    after the one command, python-fido2's `CtapError` for a status of the phone, `RuntimeError` on the loop's thread,
    and what the session's `call` raises. Setting `event` ends the wait with a `CtapError` (KEEPALIVE_CANCEL).
    """

    def __init__(self, session: CtapSession, client_data_collector: ClientDataCollector) -> None:
        self._device = HybridCtapDevice(session)
        self._collector = client_data_collector

    def make_credential(
        self, options: PublicKeyCredentialCreationOptions, event: Event | None = None
    ) -> RegistrationResponse:
        plan = self._registration_plan(options)
        request = plan.request(self._device.get_info)
        answer = self._device.exchange(request.message, event=event, timeout=plan.options.timeout)
        result = request.result(answer)
        return RegistrationResponse(
            raw_id=result.answer.credential.credential_id,
            response=AuthenticatorAttestationResponse(
                client_data=CollectedClientData(result.client_data),
                attestation_object=_view(AttestationObject, result.answer.attestation_object()),
            ),
            authenticator_attachment=AuthenticatorAttachment.CROSS_PLATFORM,
            client_extension_results=AuthenticationExtensionsClientOutputs(_outputs(result.extensions)),
        )

    def get_assertion(
        self, options: PublicKeyCredentialRequestOptions, event: Event | None = None
    ) -> AssertionSelection:
        plan = self._assertion_plan(options)
        request = plan.request(self._device.get_info)
        answer = self._device.exchange(request.message, event=event, timeout=plan.options.timeout)
        return _selection(request.result(answer))

    def _registration_plan(self, options: PublicKeyCredentialCreationOptions) -> RegistrationPlan:
        own = read_registration_options(_mapping(options))
        client_data, rp_id = self._collect(_fido2_options(PublicKeyCredentialCreationOptions, options))
        return RegistrationPlan(own, rp_id, client_data, registration_extensions(own))

    def _assertion_plan(self, options: PublicKeyCredentialRequestOptions) -> AssertionPlan:
        own = read_assertion_options(_mapping(options))
        client_data, rp_id = self._collect(_fido2_options(PublicKeyCredentialRequestOptions, options))
        return AssertionPlan(own, rp_id, client_data, assertion_extensions(own))

    def _collect(self, options: _Options) -> tuple[bytes, str]:
        client_data, rp_id = self._collector.collect_client_data(options)
        # python-fido2's own collectors accept RP ids that are public suffixes or parts of IP addresses.
        return bytes(client_data), check_rp_id(rp_id, client_data.origin)


def _mapping(options: object) -> Mapping[str, Any]:
    """Take python-fido2's options, which are mappings, or a mapping of the same members, as its own client does."""
    if not isinstance(options, Mapping):
        raise RequestRefused("the options are no mapping", RefusalReason.OPTIONS)
    return options


def _fido2_options(kind: type[_Type], options: _Type | Mapping[str, Any]) -> _Type:
    """Give what a collector wants; members that were read strictly before cannot surprise it."""
    try:
        return kind.from_dict(options)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RequestRefused("python-fido2 cannot read the options", RefusalReason.OPTIONS) from None


def _selection(result: Assertion) -> AssertionSelection:
    response = AssertionResponse(
        credential={"id": result.credential_id, "type": "public-key"},
        auth_data=_view(AuthenticatorData, result.auth_data.raw),
        signature=result.signature,
        user=None if result.user_handle is None else {"id": result.user_handle},
    )
    return AssertionSelection(CollectedClientData(result.client_data), [response], _outputs(result.extensions))


def _view(kind: type[_View], data: bytes) -> _View:
    """python-fido2's view of bytes that we have read already; its CBOR knows fewer types than ours."""
    try:
        return kind(data)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error):
        raise RemoteProtocolError("python-fido2 cannot read the phone's answer") from None


def _outputs(extensions: Mapping[str, Any]) -> dict[str, Any]:
    """Client extension results in the types that python-fido2's users know."""
    outputs: dict[str, Any] = {}
    if "prf" in extensions:
        prf = extensions["prf"]
        values = AuthenticatorExtensionsPRFValues(**prf["results"]) if "results" in prf else None
        outputs["prf"] = AuthenticatorExtensionsPRFOutputs(enabled=prf.get("enabled"), results=values)
    if "largeBlob" in extensions:
        outputs["largeBlob"] = AuthenticatorExtensionsLargeBlobOutputs(**extensions["largeBlob"])
    if "credProps" in extensions:
        outputs["credProps"] = CredentialPropertiesOutput(**extensions["credProps"])
    return outputs
