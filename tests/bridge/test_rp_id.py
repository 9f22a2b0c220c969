"""Which RP ids an origin may use: a table, mostly of what must be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.errors import RefusalReason, RequestRefused
from hybrid.fido2_bridge.rp_id import check_rp_id, normal_domain, parse_origin

ACCEPTED = [
    ("example.com", "https://example.com", "example.com"),
    ("example.com", "https://example.com/", "example.com"),
    ("example.com", "https://example.com:8443", "example.com"),
    ("example.com", "https://login.example.com", "example.com"),
    ("login.example.com", "https://login.example.com", "login.example.com"),
    ("example.com", "HTTPS://a.b.EXAMPLE.com", "example.com"),
    ("EXAMPLE.com", "https://example.com", "example.com"),
    ("example.co.uk", "https://www.example.co.uk", "example.co.uk"),
    ("alice.github.io", "https://alice.github.io", "alice.github.io"),
    ("city.kawasaki.jp", "https://city.kawasaki.jp", "city.kawasaki.jp"),
    ("www.ck", "https://www.ck", "www.ck"),
    ("nas.lan", "https://nas.lan", "nas.lan"),
    ("nas.lan", "https://files.nas.lan", "nas.lan"),
    ("localhost", "http://localhost:8080", "localhost"),
    ("localhost", "https://localhost", "localhost"),
    ("app.localhost", "http://app.localhost:3000", "app.localhost"),
    ("app.localhost", "http://x.app.localhost", "app.localhost"),
    ("b\u00fccher.de", "https://xn--bcher-kva.de", "xn--bcher-kva.de"),
    ("xn--bcher-kva.de", "https://B\u00dcCHER.de", "xn--bcher-kva.de"),
    ("XN--BCHER-KVA.de", "https://b\u00fccher.de", "xn--bcher-kva.de"),
    ("bu\u0308cher.de", "https://b\u00fccher.de", "xn--bcher-kva.de"),
    ("xn--strae-oqa.de", "https://xn--strae-oqa.de", "xn--strae-oqa.de"),
    ("\uff45xample\u3002com", "https://example.com", "example.com"),
    ("\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444", "https://xn--e1afmkfd.xn--p1ai", "xn--e1afmkfd.xn--p1ai"),
    ("1.example.com", "https://1.example.com", "1.example.com"),
    ("0x10.example.com", "https://0x10.example.com", "0x10.example.com"),
    ("a--b.example.com", "https://a--b.example.com", "a--b.example.com"),
]

# capital letter, full-width letter, ligature, leading mark, space, private use
PUNYCODE_OF_NO_LABEL = [
    "xn--" + text.encode("punycode").decode()
    for text in ("b\u00dccher", "b\uff45cher", "\ufb01sch", "\u0308bcher", "b\u2003cher", "b\ue000cher")
]

REFUSED = [
    # other sites
    ("example.com", "https://example.org"),
    ("example.com", "https://badexample.com"),
    ("login.example.com", "https://example.com"),
    ("ample.com", "https://example.com"),
    ("example.com", "https://example.com.evil.org"),
    ("", "https://example.com"),
    # public suffixes, of both sections of the list, in any form
    ("com", "https://example.com"),
    ("com", "https://com"),
    ("co.uk", "https://example.co.uk"),
    ("uk", "https://example.co.uk"),
    ("co.uk", "https://co.uk"),
    ("CO.UK", "https://example.co.uk"),
    ("github.io", "https://alice.github.io"),
    ("github.io", "https://github.io"),
    ("io", "https://alice.github.io"),
    ("blogspot.com", "https://alice.blogspot.com"),
    ("kawasaki.jp", "https://city.kawasaki.jp"),
    ("a.kawasaki.jp", "https://b.a.kawasaki.jp"),
    ("ck", "https://www.ck"),
    ("xn--p1ai", "https://xn--e1afmkfd.xn--p1ai"),
    ("\u0440\u0444", "https://xn--e1afmkfd.xn--p1ai"),
    ("xn--55qx5d.cn", "https://a.xn--55qx5d.cn"),
    ("\u516c\u53f8.cn", "https://a.xn--55qx5d.cn"),
    ("XN--FIQS8S", "https://a.xn--fiqs8s"),
    # wider than the suffix of the host, though no suffix itself
    ("amazonaws.com", "https://bucket.s3.amazonaws.com"),
    # unknown names
    ("lan", "https://nas.lan"),
    ("lan", "https://lan"),
    ("intranet", "https://intranet"),
    ("internal", "https://db.internal"),
    ("localhost", "http://app.localhost"),
    # IP addresses, in every spelling that browsers know, and parts of them
    ("10.0.1.2", "https://10.0.1.2"),
    ("1.2", "https://10.0.1.2"),
    ("2", "https://10.0.1.2"),
    ("0.1.2", "https://10.0.1.2"),
    ("10.258", "https://10.258"),
    ("167772418", "https://167772418"),
    ("0x0a000102", "https://0x0a000102"),
    ("0X0A.0.1.2", "https://0X0A.0.1.2"),
    ("10.0.1.0x2", "https://10.0.1.0x2"),
    ("012.0.0.1", "https://012.0.0.1"),
    ("10.0.1.2.", "https://10.0.1.2."),
    ("example.0x", "https://example.0x"),
    ("example.1", "https://example.1"),
    ("\uff11\uff10.0.1.\uff12", "https://10.0.1.2"),
    ("127.0.0.1", "http://127.0.0.1"),
    ("[::1]", "https://[::1]"),
    ("::1", "https://[::1]"),
    ("[::ffff:10.0.1.2]", "https://[::ffff:10.0.1.2]"),
    ("2001:db8::1", "https://[2001:db8::1]"),
    # empty labels
    ("example.com.", "https://example.com."),
    ("example.com.", "https://example.com"),
    ("example.com", "https://example.com."),
    ("com.", "https://example.com."),
    (".com", "https://example.com"),
    (".example.com", "https://example.com"),
    ("example..com", "https://example..com"),
    (".", "https://example.com"),
    ("example.com\u3002", "https://example.com"),
    # characters and lengths
    ("exa mple.com", "https://exa mple.com"),
    ("example.com\n", "https://example.com"),
    ("example.com\x00", "https://example.com"),
    ("ex_ample.com", "https://ex_ample.com"),
    ("-example.com", "https://-example.com"),
    ("example-.com", "https://example-.com"),
    ("*.example.com", "https://a.example.com"),
    ("example.com:443", "https://example.com"),
    ("https://example.com", "https://example.com"),
    ("example.com/", "https://example.com"),
    ("ex%61mple.com", "https://example.com"),
    ("example\u2024com", "https://example.com"),
    ("a\u2100b.com", "https://a/cb.com"),
    ("\ud800.com", "https://\ud800.com"),
    ("a" * 64 + ".com", "https://" + "a" * 64 + ".com"),
    ("a." * 130 + "com", "https://" + "a." * 130 + "com"),
    ("a" * 100_000, "https://" + "a" * 100_000),
    ("\u00fc" * 60 + ".de", "https://" + "\u00fc" * 60 + ".de"),
    # names with two readings, and punycode that is none
    ("stra\u00dfe.de", "https://strasse.de"),
    ("stra\u00dfe.de", "https://stra\u00dfe.de"),
    ("a\u200db.com", "https://ab.com"),
    ("a\u00adb.com", "https://ab.com"),
    ("\u03c2.gr", "https://\u03c3.gr"),
    ("xn--a", "https://xn--a"),
    ("xn--.com", "https://xn--.com"),
    ("xn--example-.com", "https://example.com"),
    ("xn--ample-9xh.com", "https://xn--ample-9xh.com\u3002"),
    ("xn--\uff45xample.com", "https://example.com"),
    ("xn--99999999.com", "https://xn--99999999.com"),
    *((f"{label}.com", f"https://{label}.com") for label in PUNYCODE_OF_NO_LABEL),
]

# never an RP id, whatever the origin
NEVER = [
    *("com", "co.uk", "github.io", "kawasaki.jp", "xn--p1ai", "\u0440\u0444", "lan", "intranet", "1.2", "10.0.1.2"),
    *("0x7f.1", "example.com.", ".com", "", "[::1]", "ex_ample.com", "stra\u00dfe.de", "xn--a.com"),
]

ORIGINS_REFUSED = [
    "",
    "example.com",
    "http://example.com",
    "http://10.0.1.2",
    "http://localhost.evil.org",
    "http://notlocalhost",
    "ftp://example.com",
    "https://",
    "https:///",
    "https:example.com",
    "https://example.com/path",
    "https://example.com?x",
    "https://example.com#x",
    "https://example.com//",
    "https://user@example.com",
    "https://evil.org\\@example.com",
    "https://evil.org/@example.com",
    "https://example.com:",
    "https://example.com:port",
    "https://example.com:65536",
    "https://example.com:443:443",
    "https://exa\tmple.com",
    " https://example.com",
    "https://example.com ",
    "https://example.com\n",
    "https://ex%61mple.com",
    "http\u017f://example.com",
    "null",
    "android:apk-key-hash:abc",
]


@pytest.mark.parametrize(("rp_id", "origin", "normal"), ACCEPTED)
def test_accepts_in_normal_form(rp_id: str, origin: str, normal: str) -> None:
    assert check_rp_id(rp_id, origin) == normal


@pytest.mark.parametrize(("rp_id", "origin"), REFUSED)
def test_refuses_rp_id(rp_id: str, origin: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        check_rp_id(rp_id, origin)
    assert caught.value.reason is RefusalReason.RP_ID


@pytest.mark.parametrize("rp_id", NEVER)
def test_refuses_even_an_origin_of_its_own_or_below(rp_id: str) -> None:
    for origin in (f"https://{rp_id}", f"https://www.{rp_id}", f"https://a.b.{rp_id}"):
        with pytest.raises(RequestRefused):
            check_rp_id(rp_id, origin)


@pytest.mark.parametrize("origin", ORIGINS_REFUSED)
def test_refuses_origin(origin: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        check_rp_id("example.com", origin)
    assert caught.value.reason is RefusalReason.RP_ID


@pytest.mark.parametrize(
    ("text", "serialised"),
    [
        ("https://example.com", "https://example.com"),
        ("HTTPS://Example.COM:443/", "https://example.com"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:443", "http://localhost:443"),
        ("https://b\u00fccher.de", "https://xn--bcher-kva.de"),
    ],
)
def test_serialises_origins_as_browsers_do(text: str, serialised: str) -> None:
    assert str(parse_origin(text)) == serialised


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_accepted_or_refused(rp_id: str, origin: str) -> None:
    for candidate in (origin, f"https://{origin}", f"https://{rp_id}", f"https://www.{rp_id}"):
        try:
            name = check_rp_id(rp_id, candidate)
        except RequestRefused:
            continue
        assert check_rp_id(name, str(parse_origin(candidate))) == name


@given(st.text(st.characters(min_codepoint=0xA1), min_size=1, max_size=8))
def test_a_normal_form_is_its_own_normal_form(label: str) -> None:
    try:
        name = normal_domain(f"{label}.example")
    except RequestRefused:
        return
    assert name.isascii()
    assert normal_domain(name) == name
