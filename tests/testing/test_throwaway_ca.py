from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from hybrid.testing.throwaway_ca import LOOPBACK_NAMES, ThrowawayCA


@pytest.fixture(scope="module")
def ca() -> ThrowawayCA:
    return ThrowawayCA.create()


def shake_hands(server: ssl.SSLContext, trusted: bytes, name: str) -> None:
    """A TLS handshake in memory with the strictest checks that OpenSSL has."""
    client = ssl.create_default_context(cadata=trusted.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)


@pytest.mark.parametrize("name", ["cable.ua5v.com", "127.0.0.1", "::1"])
def test_strict_client_accepts(ca: ThrowawayCA, name: str) -> None:
    shake_hands(ca.server_context("cable.ua5v.com", "127.0.0.1", "::1"), ca.certificate_pem, name)


def test_loopback_is_the_default(ca: ThrowawayCA) -> None:
    for name in LOOPBACK_NAMES:
        shake_hands(ca.server_context(), ca.certificate_pem, name)


def test_another_name_is_refused(ca: ThrowawayCA) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(ca.server_context("cable.ua5v.com"), ca.certificate_pem, "cable.auth.com")


def test_another_authority_is_refused(ca: ThrowawayCA) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(ca.server_context("localhost"), ThrowawayCA.create().certificate_pem, "localhost")


def test_a_server_cannot_sign_for_others(ca: ThrowawayCA) -> None:
    leaf = x509.load_pem_x509_certificates(ca.issue("localhost")[0])[0]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_files(ca: ThrowawayCA, tmp_path: Path) -> None:
    files = ca.write(tmp_path, "localhost")
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(files.chain, files.key)
    shake_hands(server, files.ca.read_bytes(), "localhost")
    assert sorted(tmp_path.iterdir()) == sorted([files.ca, files.chain, files.key])


def test_no_name_is_refused(ca: ThrowawayCA) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        ca.issue()


def test_the_private_key_is_not_shown(ca: ThrowawayCA) -> None:
    assert "key" not in repr(ca).lower()
