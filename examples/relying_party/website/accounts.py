"""Accounts and their passkeys, as records."""

from __future__ import annotations

import json
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from sqlite3 import Row
from uuid import UUID

from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticatorData,
    PublicKeyCredentialDescriptor,
    PublicKeyCredentialType,
)

from examples.relying_party.website.audit import AuditLog, Happened, fingerprint
from examples.relying_party.website.database import Database
from examples.relying_party.website.policy import Policy
from examples.relying_party.website.refused import Reason, Refused

USER_HANDLE_SIZE = 32
MAX_NAME = 64

_TRANSPORTS = ("ble", "cable", "hybrid", "internal", "nfc", "smart-card", "usb")


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `id`: the user handle, random; `created` in seconds since 1970."""

    id: bytes
    name: str
    display_name: str
    policy: Policy
    created: int


@dataclass(frozen=True, slots=True)
class Passkey:
    """One passkey.

    `attested`: AAGUID, id and public key; `transports` as the browser said at registration; `backup_eligible` is fixed
    for life, `backed_up` and `counter` are those last seen; `last_way`: how it was reached last, see `way_of`;
    `trusted`: a root that this website trusts vouched for its device; `copied`: when its owner told us that it was
    exported or imported.
    """

    id: bytes
    account: bytes
    attested: AttestedCredentialData
    algorithm: int
    transports: tuple[str, ...]
    aaguid: UUID
    backup_eligible: bool
    backed_up: bool
    counter: int
    attachment: str | None
    created: int
    last_used: int | None
    last_way: str | None
    nickname: str
    trusted: bool
    copied: int | None

    @property
    def descriptor(self) -> PublicKeyCredentialDescriptor:
        """For excludeCredentials and allowCredentials."""
        return PublicKeyCredentialDescriptor.from_dict(
            {"type": PublicKeyCredentialType.PUBLIC_KEY, "id": self.id, "transports": list(self.transports) or None}
        )


def known_transports(said: Sequence[str]) -> tuple[str, ...]:
    """The transports that a browser named, without what this website does not know: it is the page that says them."""
    return tuple(name for name in _TRANSPORTS if name in said)


def way_of(attachment: str | None, transports: Sequence[str]) -> str | None:
    """How a passkey was reached: "this-device", "phone" (hybrid), "security-key", None if the browser does not say.

    The browser says only whether it was part of this device; for the rest, a passkey that can do hybrid is on a phone.
    """
    if attachment == "platform":
        return "this-device"
    if attachment == "cross-platform":
        return "phone" if {"hybrid", "cable"} & set(transports) else "security-key"
    return None


def clean_name(text: object) -> str:
    """A name as it is kept: composed, trimmed, no control or direction characters. Raises `Refused` if none is left."""
    if not isinstance(text, str):
        raise Refused(Reason.BAD_REQUEST)
    kept = "".join(char for char in text if unicodedata.category(char)[0] != "C")
    name = " ".join(unicodedata.normalize("NFC", kept).split())
    if not 0 < len(name) <= MAX_NAME:
        raise Refused(Reason.BAD_REQUEST)
    return name


class Accounts:
    """Reads and changes the records. Rules about passkeys that arrive are in `ceremonies`."""

    def __init__(self, database: Database, audit: AuditLog, clock: Callable[[], int]) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    def now(self) -> int:
        """Seconds since 1970."""
        return self._clock()

    def transaction(self) -> AbstractContextManager[None]:
        """Several changes, all or none."""
        return self._database.transaction()

    # accounts

    def get(self, account_id: bytes) -> Account:
        """Raises `Refused` if it is not there."""
        row = self._database.row("SELECT * FROM account WHERE id = ?", account_id)
        if row is None:
            raise Refused(Reason.SIGNED_OUT)
        return _account(row)

    def named(self, name: str) -> Account | None:
        row = self._database.row("SELECT * FROM account WHERE name = ?", name)
        return None if row is None else _account(row)

    def everyone(self) -> list[Account]:
        return [_account(row) for row in self._database.rows("SELECT * FROM account ORDER BY created, name")]

    def draft(self, name: object, display_name: object, policy: Policy) -> Account:
        """An account that is not kept yet. Raises `Refused`."""
        wanted = clean_name(name)
        if self.named(wanted) is not None:
            raise Refused(Reason.NAME_TAKEN)
        shown = wanted if display_name is None else clean_name(display_name)
        return Account(secrets.token_bytes(USER_HANDLE_SIZE), wanted, shown, policy, self._clock())

    def open(self, account: Account) -> None:
        """Keep a new account. Raises `Refused` if somebody was faster with its name."""
        if self.named(account.name) is not None:
            raise Refused(Reason.NAME_TAKEN)
        self._database.run(
            "INSERT INTO account VALUES (?, ?, ?, ?, ?)",
            *(account.id, account.name, account.display_name, account.policy.value, account.created),
        )
        self._audit.note(Happened.ACCOUNT_MADE, account.id, policy=account.policy.value)

    def show_as(self, account: Account, display_name: object) -> None:
        """Change what the account is called on the screen. Raises `Refused`."""
        self._database.run("UPDATE account SET display_name = ? WHERE id = ?", clean_name(display_name), account.id)

    def override_policy(self, account: Account, policy: Policy, by: Account) -> None:
        """An administrator puts an account into another class and signs it out: its passkeys are judged anew."""
        with self._database.transaction():
            self._database.run("UPDATE account SET policy = ? WHERE id = ?", policy.value, account.id)
            self._database.run("DELETE FROM session WHERE account = ?", account.id)
            self._audit.note(
                Happened.ADMIN_OVERRIDE,
                account.id,
                before=account.policy.value,
                policy=policy.value,
                by=by.name,
            )

    # passkeys

    def passkeys(self, account: Account) -> list[Passkey]:
        rows = self._database.rows("SELECT * FROM passkey WHERE account = ? ORDER BY created, rowid", account.id)
        return [_passkey(row) for row in rows]

    def passkey(self, credential_id: bytes) -> Passkey | None:
        row = self._database.row("SELECT * FROM passkey WHERE id = ?", credential_id)
        return None if row is None else _passkey(row)

    def own_passkey(self, account: Account, credential_id: bytes) -> Passkey:
        """Raises `Refused`, the same for somebody else's and for one that is nowhere."""
        passkey = self.passkey(credential_id)
        if passkey is None or passkey.account != account.id:
            raise Refused(Reason.UNKNOWN_PASSKEY)
        return passkey

    def add_passkey(self, passkey: Passkey, *, way: str | None, provider: str | None) -> None:
        """Keep one more. Never replaces: an id that is known to anybody is refused."""
        if self.passkey(passkey.id) is not None:
            raise Refused(Reason.KNOWN_PASSKEY)
        self._database.run(
            "INSERT INTO passkey VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(passkey.id, passkey.account, bytes(passkey.attested), passkey.algorithm, json.dumps(passkey.transports)),
            *(str(passkey.aaguid), passkey.backup_eligible, passkey.backed_up, passkey.counter, passkey.attachment),
            *(passkey.created, passkey.last_used, passkey.last_way, passkey.nickname, passkey.trusted, passkey.copied),
        )
        self._audit.note(
            Happened.PASSKEY_ADDED,
            passkey.account,
            passkey=fingerprint(passkey.id),
            name=passkey.nickname,
            provider=provider,
            way=way,
            transports=", ".join(passkey.transports),
            be=passkey.backup_eligible,
            bs=passkey.backed_up,
        )

    def note_use(self, passkey: Passkey, seen: AuthenticatorData, attachment: str | None) -> Passkey:
        """Keep what a good assertion said of the passkey."""
        way = way_of(attachment, passkey.transports)
        if seen.is_backed_up() != passkey.backed_up:
            self._audit.note(
                Happened.BACKUP_CHANGED,
                passkey.account,
                passkey=fingerprint(passkey.id),
                name=passkey.nickname,
                bs=seen.is_backed_up(),
            )
        self._database.run(
            "UPDATE passkey SET backed_up = ?, counter = ?, last_used = ?, last_way = ? WHERE id = ?",
            *(seen.is_backed_up(), seen.counter, self._clock(), way, passkey.id),
        )
        renewed = self.passkey(passkey.id)
        assert renewed is not None
        return renewed

    def rename(self, passkey: Passkey, nickname: object) -> None:
        """Raises `Refused`."""
        name = clean_name(nickname)
        with self._database.transaction():
            self._database.run("UPDATE passkey SET nickname = ? WHERE id = ?", name, passkey.id)
            self._audit.note(
                Happened.PASSKEY_RENAMED,
                passkey.account,
                passkey=fingerprint(passkey.id),
                before=passkey.nickname,
                name=name,
            )

    def report_copy(self, passkey: Passkey) -> None:
        """Its owner says that it was exported to, or imported from, somewhere else. The website cannot see that."""
        with self._database.transaction():
            self._database.run("UPDATE passkey SET copied = ? WHERE id = ?", self._clock(), passkey.id)
            self._audit.note(
                Happened.COPY_REPORTED, passkey.account, passkey=fingerprint(passkey.id), name=passkey.nickname
            )

    def remove(self, account: Account, passkey: Passkey, *, codes_left: int) -> None:
        """Forget a passkey and end the sessions that it began. Raises `Refused` if the account would be locked."""
        left = len(self.passkeys(account)) - 1
        if left == 0 and codes_left == 0:
            raise Refused(Reason.LAST_PASSKEY)
        if left < account.policy.passkeys_needed and account.policy is Policy.ADMIN:
            raise Refused(Reason.TOO_FEW)
        with self._database.transaction():
            self._database.run("DELETE FROM passkey WHERE id = ?", passkey.id)
            self._database.run("DELETE FROM session WHERE passkey = ?", passkey.id)
            self._audit.note(
                Happened.PASSKEY_REMOVED,
                account.id,
                passkey=fingerprint(passkey.id),
                name=passkey.nickname,
                left=left,
            )


def _account(row: Row) -> Account:
    return Account(row["id"], row["name"], row["display_name"], Policy(row["policy"]), row["created"])


def _passkey(row: Row) -> Passkey:
    return Passkey(
        id=row["id"],
        account=row["account"],
        attested=AttestedCredentialData(row["attested"]),
        algorithm=row["algorithm"],
        transports=tuple(json.loads(row["transports"])),
        aaguid=UUID(row["aaguid"]),
        backup_eligible=bool(row["backup_eligible"]),
        backed_up=bool(row["backed_up"]),
        counter=row["counter"],
        attachment=row["attachment"],
        created=row["created"],
        last_used=row["last_used"],
        last_way=row["last_way"],
        nickname=row["nickname"],
        trusted=bool(row["trusted"]),
        copied=row["copied"],
    )
