"""What moving passkeys in and out has in common: the report of what was lost, the checks of what comes in, files.

Each foreign format has its own module (`cxf`, `bitwarden`, `keepassxc_file`, `kdbx`). What comes in is somebody else's
claim: RP ids are checked in form, keys are loaded and their public half computed anew, and what cannot be used is left
out with a reason. Whether an RP id fits an origin is the client's affair, not decided here.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.store import Credential, CredentialState, CredentialStore
from hybrid.passkeys.vault_disk import Stamp

try:
    from cryptography.hazmat.primitives.asymmetric import mldsa
except ImportError:  # before cryptography 47
    _ML_DSA: tuple[tuple[type, int], ...] = ()
else:
    _ML_DSA = ((mldsa.MLDSA44PrivateKey, -48), (mldsa.MLDSA65PrivateKey, -49))

MAX_FILE_SIZE = 32 << 20
MAX_JSON_DEPTH = 32
MAX_PASSKEYS = 100_000

ES256, EDDSA, RS256 = -7, -8, -257

_MAX_CREDENTIAL_ID_SIZE = 1023
_MAX_USER_ID_SIZE = 64
_MAX_NAME_SIZE = 256  # UTF-8 bytes, as the engine keeps them
_MAX_KEY_SIZE = 8192
_MAX_CRED_BLOB_SIZE = 1024
_MAX_LARGE_BLOB_SIZE = 64 << 10  # compressed
_MAX_INFLATED_SIZE = 1 << 20
_SECRET_SIZE = 32
_MAX_TIME = 253_402_300_799  # the last second of the year 9999
_RSA_SIZES = range(2048, 4097)

# The same key serves more than one COSE number (RFC 9864); the first is what a foreign format means.
_ALGORITHMS_OF_CURVE: tuple[tuple[type[ec.EllipticCurve], tuple[int, ...]], ...] = (
    (ec.SECP256R1, (ES256, -9)),
    (ec.SECP384R1, (-35, -51)),
    (ec.SECP521R1, (-36, -52)),
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class Loss(StrEnum):
    """A part of a passkey that does not go with it."""

    RP_NAME = "rp-name"
    DISPLAY_NAME = "display-name"
    TIMES = "times"
    BACKUP_FLAGS = "backup-flags"
    COUNTER = "counter"
    ALGORITHM = "algorithm-number"
    DISCOVERABLE = "discoverable"
    CRED_PROTECT = "cred-protect"
    PRF = "prf"
    CRED_BLOB = "cred-blob"
    LARGE_BLOB = "large-blob"
    LARGE_BLOB_KEY = "large-blob-key"
    PAYMENTS = "payments"
    AAGUID = "aaguid"
    STATE = "state"
    NOTE = "note"
    USE = "use-count"
    ICON = "icon"
    NAME = "name"


class LeftOut(StrEnum):
    """Why a whole passkey was not taken or given. Each is mended differently."""

    MALFORMED = "malformed"
    RP_ID = "rp-id"
    CREDENTIAL_ID = "credential-id"
    USER_HANDLE = "user-handle"
    KEY = "key"
    KEY_KIND = "key-kind"
    PUBLIC_KEY = "public-key"
    COUNTER = "counter"
    STATE = "state"
    DUPLICATE = "duplicate"
    ALREADY_THERE = "already-there"
    ID_CLASH = "id-clash"


class UnusablePasskey(Exception):
    """This one passkey is left out. Never leaves these modules."""

    def __init__(self, why: LeftOut) -> None:
        super().__init__(why.value)
        self.why = why


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report. `rp_id` and `user_name` are as in the file: make them harmless before showing them.

    `kept_for_us`: the part went along, but in a place that only this program reads.
    """

    rp_id: str
    user_name: str
    what: Loss | LeftOut
    kept_for_us: bool = False


@dataclass(slots=True)
class Report:
    """What became of the passkeys of one export or import. Every loss is in here by name.

    `moved`: the ids of those that went along.
    """

    format: str
    moved: list[bytes] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    others: int = 0  # items that are no passkeys: kept where the format is written anew, passed over otherwise
    same_account: int = 0  # imported beside another passkey of the same account

    @property
    def carried(self) -> int:
        return len(self.moved)

    @property
    def left_out(self) -> list[Finding]:
        return [finding for finding in self.findings if isinstance(finding.what, LeftOut)]

    @property
    def losses(self) -> list[Finding]:
        return [f for f in self.findings if isinstance(f.what, Loss) and not f.kept_for_us]

    def lost(self, credential: Credential, losses: Iterable[Loss], *, kept_for_us: bool = False) -> None:
        self.findings += [Finding(credential.rp_id, credential.user_name, loss, kept_for_us) for loss in losses]

    def leave_out(self, rp_id: object, user_name: object, why: LeftOut) -> None:
        """Takes whatever the file has for names."""
        names = [name[:_MAX_NAME_SIZE] if isinstance(name, str) else "" for name in (rp_id, user_name)]
        self.findings.append(Finding(names[0], names[1], why))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "format": self.format,
            "carried": self.carried,
            "others": self.others,
            "sameAccount": self.same_account,
            "leftOut": [{**_named(finding), "why": finding.what.value} for finding in self.left_out],
            "losses": [
                {**_named(finding), "what": finding.what.value, "keptForUs": finding.kept_for_us}
                for finding in self.findings
                if isinstance(finding.what, Loss)
            ],
        }


def _named(finding: Finding) -> dict[str, str]:
    return {"rpId": finding.rp_id, "userName": finding.user_name}


@dataclass(frozen=True, slots=True)
class Imported:
    """Passkeys of a file, checked, and the report of the rest."""

    credentials: tuple[Credential, ...]
    report: Report


@dataclass(frozen=True, slots=True, repr=False)
class Exported:
    """The bytes of a file, which hold keys, and the report of what is not in them."""

    data: bytes
    report: Report

    def __repr__(self) -> str:
        return f"<Exported {self.report.format}, {self.report.carried} passkeys>"


# --- reading ---------------------------------------------------------------------------------------------------------


def read_file(path: Path) -> bytes:
    """Bytes of a foreign file, up to `MAX_FILE_SIZE`. Raises `PortabilityError`."""
    with access_problems(path):
        # Non-blocking, because opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PortabilityError(f"{path} is not a file", PortabilityProblem.ACCESS)
            data = file.read(MAX_FILE_SIZE + 1)
    check_size(data)
    return data


def check_size(data: bytes) -> None:
    """Raises `PortabilityError`."""
    if len(data) > MAX_FILE_SIZE:
        raise PortabilityError(f"the file is larger than {MAX_FILE_SIZE >> 20} MiB", PortabilityProblem.TOO_LARGE)


def read_json(data: bytes) -> dict[str, Any]:
    """The JSON object (RFC 8259) in `data`, with size and depth bounded before anything is built.

    Raises:
        PortabilityError: not one JSON object, a name twice in one object, not UTF-8, or beyond the bounds.
    """
    check_size(data)
    _check_depth(data)
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite_float)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is text to Python, and to nobody else
    except (ValueError, RecursionError):  # UnicodeError is a ValueError
        raise malformed("the file is not JSON") from None
    if not isinstance(value, dict):
        raise malformed("the file is JSON, but no object")
    return value


def write_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"


def malformed(message: str) -> PortabilityError:
    return PortabilityError(message, PortabilityProblem.MALFORMED)


# A string that does not end is one to the end of the file: tried again at every quote, it would take forever.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


def _check_depth(data: bytes) -> None:
    depth = 0
    for token in _TOKEN.finditer(data):
        match data[token.start()]:
            case 0x5B | 0x7B:
                depth += 1
                if depth > MAX_JSON_DEPTH:
                    raise PortabilityError(
                        f"the file nests deeper than {MAX_JSON_DEPTH} levels", PortabilityProblem.TOO_DEEP
                    )
            case 0x5D | 0x7D:
                depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")  # readers differ in which one counts
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number


def text_of(value: Any) -> str:
    """`value` if it is text; absent and null are empty. Raises `UnusablePasskey`."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnusablePasskey(LeftOut.MALFORMED)
    return value


def time_of(value: Any, default: int) -> int:
    """`value` if it is a time in seconds, else `default`: a wrong date is no reason to lose a key."""
    return value if type(value) is int and 0 <= value <= _MAX_TIME else default


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64url(text: Any) -> bytes:
    """Bytes of base64url (RFC 4648 §5), with or without padding. Raises `ValueError`."""
    if not isinstance(text, str) or not text.isascii():
        raise ValueError("not base64url")
    bare = text.rstrip("=")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", bare):
        raise ValueError("not base64url")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        raise ValueError("not base64url") from None


# --- keys ------------------------------------------------------------------------------------------------------------


def algorithms_of(private_key: bytes) -> tuple[int, ...]:
    """COSE numbers that a PKCS#8 key can serve, the usual one first.

    The public key is computed anew on the way: a key that carries another one than its own is refused.

    Raises `UnusablePasskey`.
    """
    key = _loaded(private_key)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        scalar = key.private_numbers().private_value
        if ec.derive_private_key(scalar, key.curve).public_key() != key.public_key():
            raise UnusablePasskey(LeftOut.PUBLIC_KEY)
        for curve, numbers in _ALGORITHMS_OF_CURVE:
            if isinstance(key.curve, curve):
                return numbers
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return (EDDSA, -19)
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size in _RSA_SIZES:
        return (RS256,)
    for kind, number in _ML_DSA:
        if isinstance(key, kind):
            return (number,)
    raise UnusablePasskey(LeftOut.KEY_KIND)


def public_key_of(credential: Credential) -> bytes:
    """SubjectPublicKeyInfo DER of a passkey's public key, computed from its private one. Raises `PortabilityError`.

    Compare it with what the site has registered.
    """
    try:
        algorithms_of(credential.private_key)
        public = _loaded(credential.private_key).public_key()
    except UnusablePasskey:
        raise malformed("this passkey has no usable key") from None
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _loaded(private_key: bytes) -> Any:
    if len(private_key) > _MAX_KEY_SIZE or not _is_pkcs8(private_key):
        raise UnusablePasskey(LeftOut.KEY)
    try:
        return load_der_private_key(private_key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        raise UnusablePasskey(LeftOut.KEY) from None


def _is_pkcs8(der: bytes) -> bool:
    """PrivateKeyInfo (RFC 5958 §2): a sequence of a small integer and a sequence.

    The library takes other forms as well, which other readers of what we write do not.
    """
    if len(der) < 8 or der[0] != 0x30:
        return False
    start = 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)
    return der[start : start + 2] == b"\x02\x01" and der[start + 3 : start + 4] == b"\x30"


_PEM = re.compile(r"\s*-----BEGIN PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END PRIVATE KEY-----\s*")


def pem_of(private_key: bytes) -> str:
    body = base64.b64encode(private_key).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])


def from_pem(text: Any) -> bytes:
    """DER of an unencrypted PKCS#8 PEM key (RFC 7468 §10). Raises `UnusablePasskey`."""
    found = _PEM.fullmatch(text) if isinstance(text, str) and len(text) <= 4 * _MAX_KEY_SIZE else None
    if found is None:
        raise UnusablePasskey(LeftOut.KEY)
    try:
        return base64.b64decode("".join(found[1].split()), validate=True)
    except binascii.Error:
        raise UnusablePasskey(LeftOut.KEY) from None


# --- checks ----------------------------------------------------------------------------------------------------------


def is_rp_id(text: str) -> bool:
    """Whether `text` has the form of an RP id: a lower-case domain name in A-labels, and no address."""
    labels = text.split(".")
    return (
        0 < len(text) <= 253
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()  # an IPv4 address, or a part of one
        and not re.fullmatch(r"0x[0-9a-f]*", labels[-1])
    )


def checked(credential: Credential, report: Report) -> Credential:
    """Give `credential` as it may enter a store. Notes in `report` what it loses. Raises `UnusablePasskey`."""
    if not is_rp_id(credential.rp_id):
        raise UnusablePasskey(LeftOut.RP_ID)
    if not 1 <= len(credential.credential_id) <= _MAX_CREDENTIAL_ID_SIZE:
        raise UnusablePasskey(LeftOut.CREDENTIAL_ID)
    if len(credential.user_id) > _MAX_USER_ID_SIZE or (credential.discoverable and not credential.user_id):
        raise UnusablePasskey(LeftOut.USER_HANDLE)
    if credential.algorithm not in algorithms_of(credential.private_key):
        raise UnusablePasskey(LeftOut.KEY_KIND)
    losses = []
    if credential.sign_count:  # an import never counts on: its source may still be in use
        losses.append(Loss.COUNTER)
    names = {name: _cut(getattr(credential, name)) for name in ("rp_name", "user_name", "user_display_name")}
    if any(names[name] != getattr(credential, name) for name in names):
        losses.append(Loss.NAME)
    changes: dict[str, Any] = {**names, "sign_count": None}
    if any(len(secret) != _SECRET_SIZE for secret in (credential.secret_uv, credential.secret_no_uv) if secret):
        losses.append(Loss.PRF)
        changes |= {"secret_uv": None, "secret_no_uv": None}
    if credential.cred_blob is not None and len(credential.cred_blob) > _MAX_CRED_BLOB_SIZE:
        losses.append(Loss.CRED_BLOB)
        changes["cred_blob"] = None
    if credential.large_blob is not None and not _is_large_blob(*credential.large_blob):
        losses.append(Loss.LARGE_BLOB)
        changes["large_blob"] = None
    if credential.backed_up and not credential.backup_eligible:  # WebAuthn Level 3 §6.1.3: never without
        losses.append(Loss.BACKUP_FLAGS)
        changes["backed_up"] = False
    report.lost(credential, losses)
    return replace(credential, **changes)


def _cut(name: str) -> str:
    return name.encode()[:_MAX_NAME_SIZE].decode(errors="ignore")


def _is_large_blob(data: bytes, size: int) -> bool:
    """Raw DEFLATE that gives exactly `size` bytes; never inflates more than that."""
    if len(data) > _MAX_LARGE_BLOB_SIZE or not 0 <= size <= _MAX_INFLATED_SIZE:
        return False
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return len(inflater.decompress(data, size + 1)) == size and inflater.eof
    except zlib.error:
        return False


def take(found: Iterable[tuple[object, object, Callable[[], Credential]]], report: Report) -> Imported:
    """Build and check the passkeys of a file. `found`: RP id and user name for the report, and what builds it."""
    taken: dict[bytes, Credential] = {}
    for number, (rp_id, user_name, build) in enumerate(found):
        if number >= MAX_PASSKEYS:
            raise PortabilityError(f"the file has more than {MAX_PASSKEYS} passkeys", PortabilityProblem.TOO_LARGE)
        before = len(report.findings)
        try:
            credential = checked(build(), report)
        except UnusablePasskey as unusable:
            del report.findings[before:]  # a passkey that is not there has lost no parts
            report.leave_out(rp_id, user_name, unusable.why)
            continue
        twin = taken.get(credential.credential_id)
        if twin is not None:
            report.leave_out(rp_id, user_name, LeftOut.DUPLICATE if _same(twin, credential) else LeftOut.ID_CLASH)
            continue
        taken[credential.credential_id] = credential
    report.moved = list(taken)
    return Imported(tuple(taken.values()), report)


def _same(one: Credential, other: Credential) -> bool:
    if (one.rp_id, one.user_id) != (other.rp_id, other.user_id):
        return False
    try:
        return public_key_of(one) == public_key_of(other)
    except PortabilityError:  # the store's own has no usable key
        return False


@runtime_checkable
class BulkStore(Protocol):
    """A `CredentialStore` for which many passkeys at once are one change, where one is expensive."""

    def add_all(self, credentials: Sequence[Credential]) -> None:
        """Keep all of them, or none."""
        ...


def import_into(store: CredentialStore, imported: Imported) -> Report:
    """Add passkeys to `store`; none that it holds is changed or replaced. Raises `VaultError`.

    One that is there already is left out, and so is another one with an id that is taken. A further passkey of an
    account is kept beside the others, and counted in the report.
    """
    report = imported.report
    report.moved = []
    there = {credential.credential_id: credential for credential in store.credentials()}
    accounts = {(c.rp_id, c.user_id) for c in there.values() if c.usable}
    new: list[Credential] = []
    for credential in imported.credentials:
        twin = there.get(credential.credential_id)
        if twin is not None:
            why = LeftOut.ALREADY_THERE if _same(twin, credential) else LeftOut.ID_CLASH
            report.leave_out(credential.rp_id, credential.user_name, why)
            continue
        report.same_account += (credential.rp_id, credential.user_id) in accounts
        there[credential.credential_id] = credential
        accounts.add((credential.rp_id, credential.user_id))
        new.append(credential)
    if isinstance(store, BulkStore):
        store.add_all(new)
    else:
        for credential in new:
            store.add(credential)
    report.moved = [credential.credential_id for credential in new]
    return report


def offered(credentials: Iterable[Credential], report: Report) -> Iterator[Credential]:
    """Those that an export gives away: archived and hidden ones stay, and the report says so."""
    for credential in credentials:
        if credential.usable:
            yield credential
        else:
            report.leave_out(credential.rp_id, credential.user_name, LeftOut.STATE)


_UNSET: tuple[tuple[Loss, Callable[[Credential], bool]], ...] = (
    (Loss.RP_NAME, lambda c: bool(c.rp_name)),
    (Loss.DISPLAY_NAME, lambda c: bool(c.user_display_name)),
    (Loss.TIMES, lambda c: True),
    (Loss.BACKUP_FLAGS, lambda c: not (c.backup_eligible and c.backed_up)),  # importers take both for set
    (Loss.COUNTER, lambda c: bool(c.sign_count)),
    (Loss.ALGORITHM, lambda c: c.algorithm not in algorithms_of(c.private_key)[:1]),
    (Loss.DISCOVERABLE, lambda c: not c.discoverable),
    (Loss.CRED_PROTECT, lambda c: c.cred_protect != 1),
    (Loss.PRF, lambda c: c.secret_uv is not None or c.secret_no_uv is not None),
    (Loss.CRED_BLOB, lambda c: c.cred_blob is not None),
    (Loss.LARGE_BLOB, lambda c: c.large_blob is not None),
    (Loss.LARGE_BLOB_KEY, lambda c: c.large_blob_key is not None),
    (Loss.PAYMENTS, lambda c: c.payments),
    (Loss.AAGUID, lambda c: c.aaguid is not None),
    (Loss.STATE, lambda c: c.state is not CredentialState.ACTIVE),
    (Loss.NOTE, lambda c: bool(c.note)),
    (Loss.ICON, lambda c: c.user_icon is not None),
    (Loss.USE, lambda c: c.last_used_at is not None or c.use_count > 0),
)


def losses_of(credential: Credential, *, carried: Sequence[Loss]) -> list[Loss]:
    """Parts that this passkey has and a format without a place for them loses. Raises `UnusablePasskey`."""
    return [loss for loss, has in _UNSET if loss not in carried and has(credential)]


# --- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def access_problems(path: Path) -> Iterator[None]:
    """Turn what the system says into `PortabilityError`."""
    try:
        yield
    except OSError as error:
        problem = PortabilityProblem.EXISTS if isinstance(error, FileExistsError) else PortabilityProblem.ACCESS
        why = (error.strerror or "it does not say why").lower()
        raise PortabilityError(f"{path} cannot be used: {why}", problem) from error


def write_private(path: Path, data: bytes, *, overwrite: bool = False, mode: int = 0o600) -> Stamp:
    """Put `data` at `path`, readable by its owner only, on disk when this returns. Raises `PortabilityError`.

    After a crash there is the old file or the new one. Without `overwrite` a file that is there stays.
    """
    with access_problems(path):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                stamp = Stamp.of(file.fileno())
            if overwrite:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)  # unlike a rename, it fails if there is one
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return stamp
