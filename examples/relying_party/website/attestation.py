"""Who vouches for the device that made a passkey: nobody, or a CA from a file of roots."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from fido2.attestation.base import (
    AttestationResult,
    AttestationVerifier,
    InvalidAttestation,
)
from fido2.webauthn import AttestationObject, AuthenticatorData


class TrustedRoots(AttestationVerifier):
    """python-fido2's verifier with roots from a PEM file.

    Says whether an attestation leads to one of them; what that means is the policy's affair. It looks at signatures
    and names only: no revocation, no metadata. For those see python-fido2's `MdsAttestationVerifier`.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        certificates = [] if path is None else x509.load_pem_x509_certificates(path.read_bytes())
        self._roots = {certificate.subject: certificate for certificate in certificates}

    @property
    def required(self) -> bool:
        """Whether there is anything to check: without roots, no class asks for attestation."""
        return bool(self._roots)

    def ca_lookup(self, attestation_result: AttestationResult, auth_data: AuthenticatorData) -> bytes | None:
        if not attestation_result.trust_path:
            return None  # self attestation, or none: the device vouches for itself
        last = x509.load_der_x509_certificate(attestation_result.trust_path[-1])
        root = self._roots.get(last.issuer)
        return None if root is None else root.public_bytes(Encoding.DER)

    def vouch(self, attestation: AttestationObject, client_data_hash: bytes) -> bool:
        """Whether a trusted root stands behind the device."""
        if not self.required:
            return False
        try:
            self.verify_attestation(attestation, client_data_hash)
        except (InvalidAttestation, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError):
            return False  # made up, or of a kind that nobody here can check
        return True
