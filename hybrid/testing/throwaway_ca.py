"""A certificate authority made for one run: TLS in tests and demonstrations without touching the system's trust.

Certificates follow RFC 5280 closely enough for OpenSSL's strict checks and for browsers. The authority's private key
is never written anywhere and ends with the object; nothing here is meant to protect a real relay.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_CLOCK_SKEW = datetime.timedelta(hours=1)  # a virtual machine's clock may be behind its host's
_LIFETIME = datetime.timedelta(days=1)

_BOTH_ENDS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)  # nodes of a relay call each other


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Where `ThrowawayCA.write` put things: the authority's certificate, a server's chain, the server's key."""

    ca: Path
    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ThrowawayCA:
    """An authority for one run. `certificate_pem` is what a client must trust."""

    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls) -> ThrowawayCA:
        """Roll a key and sign its own certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _common_name("throwaway CA")
        builder = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(self, *names: str) -> tuple[bytes, bytes]:
        """Certificate chain and private key, both PEM, of a server called `names`: DNS names and IP addresses."""
        if not names:
            raise ValueError("a server certificate needs a name")
        key = ec.generate_private_key(ec.SECP256R1())
        identifier = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(_common_name("throwaway server"), self.certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_BOTH_ENDS), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return (
            certificate.public_bytes(Encoding.PEM) + self.certificate_pem,
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def write(self, folder: Path, *names: str) -> TLSFiles:
        """Write ``ca.pem``, ``server.pem`` and ``server.key`` (0600) into `folder`, for loopback unless named."""
        chain, key = self.issue(*(names or LOOPBACK_NAMES))
        files = TLSFiles(folder / "ca.pem", folder / "server.pem", folder / "server.key")
        files.key.touch(mode=0o600, exist_ok=False)
        files.key.write_bytes(key)
        files.chain.write_bytes(chain)
        files.ca.write_bytes(self.certificate_pem)
        return files

    def server_context(self, *names: str) -> ssl.SSLContext:
        """TLS settings of a server called `names`, for loopback unless named."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # The ssl module loads keys from files only; this one is gone before the function returns.
        with tempfile.TemporaryDirectory() as folder:
            files = self.write(Path(folder), *names)
            context.load_cert_chain(files.chain, files.key)
        return context


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
