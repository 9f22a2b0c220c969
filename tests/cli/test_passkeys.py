"""``hybrid passkeys``: tables, JSON, and nothing destroyed without a copy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybrid.passkeys.store import CredentialState
from hybrid.passkeys.vault import Vault, open_vault
from tests.cli.people import passkey
from tests.cli.stage import Outcome, run

WARNING = "hybrid: warning: this vault is not encrypted: whoever reads the file can use its passkeys\n"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    tmp_path.chmod(0o700)
    made = open_vault(tmp_path / "v")
    made.add(replace(passkey(), last_used_at=1_800_100_000, use_count=3))
    made.add(replace(passkey(1, "bob", "Bob"), backup_eligible=True, backed_up=True, rp_id="another.example"))
    made.add(replace(passkey(2, "old", ""), state=CredentialState.SUPERSEDED))
    return made


def passkeys(vault: Vault, *words: str, key: str = "none") -> Outcome:
    return run(["passkeys", *words, "--vault", str(vault.path), "--vault-key", key], environment={})


def document(outcome: Outcome) -> Any:
    assert outcome.exit_code == 0
    return json.loads(outcome.stdout)


def states(vault: Vault) -> list[str]:
    return [one.state.value for one in vault.credentials()]


# --- list and show ----------------------------------------------------------------------------------------------------


def test_list_is_a_table_of_what_is_offered(vault: Vault) -> None:
    outcome = passkeys(vault, "list")
    assert outcome.exit_code == 0
    assert outcome.stdout == (
        "ID        SITE             ACCOUNT  MADE        LAST USED   USES  WHERE      STATE\n"
        "01020304  another.example  bob      2027-01-15  never       0     synced     active\n"
        "00010203  example.com      ada      2027-01-15  2027-01-16  3     here only  active\n"
    )
    assert outcome.stderr == WARNING + "hybrid: 1 more, removed or replaced: see them with --all\n"


def test_list_has_everything_for_programs(vault: Vault) -> None:
    listed = document(passkeys(vault, "list", "--all", "--json"))
    assert listed["vault"] == str(vault.path)
    assert [one["userName"] for one in listed["passkeys"]] == ["bob", "ada", "old"]
    assert listed["passkeys"][2]["state"] == "superseded"
    assert len(document(passkeys(vault, "list", "--json"))["passkeys"]) == 2


def test_an_empty_vault(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "v")
    outcome = passkeys(vault, "list")
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert outcome.stderr == WARNING + "hybrid: there is no passkey in this vault\n"
    assert document(passkeys(vault, "list", "--json")) == {"vault": str(vault.path), "passkeys": []}


def test_no_vault_is_made_to_look_into_it(tmp_path: Path) -> None:
    outcome = run(["passkeys", "list", "--vault", str(tmp_path / "v"), "--vault-key", "none"], environment={})
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(f"hybrid: error: there is no vault at {tmp_path}/v\n")
    assert list(tmp_path.iterdir()) == []


def test_show_one(vault: Vault) -> None:
    lines = passkeys(vault, "show", "0001").stdout.splitlines()
    shown = {name: value for name, value in (line.split(maxsplit=1) for line in lines)}
    assert shown["rpId"] == "example.com"
    assert shown["createdAt"] == "2027-01-15"
    assert (shown["backedUp"], shown["aaguid"]) == ("no", "-")
    told = document(passkeys(vault, "show", "0001", "--json"))
    assert set(told) == set(shown)
    assert (told["useCount"], told["algorithm"], told["hexId"]) == (3, -7, passkey().credential_id.hex())


def test_t13_no_secret_is_shown(vault: Vault) -> None:
    secrets = replace(
        passkey(3), secret_uv=b"U" * 32, secret_no_uv=b"N" * 32, cred_blob=b"BLOBBLOB", large_blob=(b"LARGELARGE", 20)
    )
    vault.add(secrets)
    for words in (("list",), ("list", "--json"), ("show", secrets.credential_id.hex(), "--json"), ("verify",)):
        outcome = passkeys(vault, *words)
        for secret in (b"U" * 32, b"N" * 32, b"BLOBBLOB", b"LARGELARGE", secrets.private_key):
            for text in (secret.hex(), repr(secret), secret.decode("latin-1")):
                assert text not in outcome.stdout + outcome.stderr


def test_names_of_others_do_not_steer_the_terminal(vault: Vault) -> None:
    vault.add(replace(passkey(4), rp_id="b\u00fccher.example", user_name="\x1b[2Jeve\u202e", note="\x07"))
    for words in (("list",), ("show", passkey(4).credential_id.hex())):
        shown = passkeys(vault, *words).stdout
        assert shown.replace("\n", "").isprintable()
    assert "xn--bcher-kva.example" in passkeys(vault, "list").stdout


# --- finding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["0001", "000102", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "00010203040506"])
def test_a_passkey_is_named_by_its_id(vault: Vault, wanted: str) -> None:
    assert document(passkeys(vault, "show", wanted, "--json"))["userName"] == "ada"


def test_ids_in_the_table_are_long_enough_to_tell_all_apart(vault: Vault) -> None:
    vault.add(replace(passkey(), credential_id=passkey().credential_id[:6] + b"other"))
    ids = [line.split()[0] for line in passkeys(vault, "list", "--all").stdout.splitlines()[1:]]
    assert len(set(ids)) == 4
    assert {len(one) for one in ids} == {14}
    for one in ids:
        document(passkeys(vault, "show", one, "--json"))


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("000", "000 is too short for an id"),
        ("ffff", "no passkey has an id that begins with ffff"),
        ("x\x1b[2J", "no passkey has an id that begins with x\\x1b[2J"),
        ("", " is too short for an id"),
    ],
)
def test_ids_that_name_no_passkey(vault: Vault, wanted: str, sentence: str) -> None:
    outcome = passkeys(vault, "show", wanted)
    assert outcome.exit_code == 2
    assert outcome.stderr.splitlines()[1] == f"hybrid: error: {sentence}"


def test_an_id_that_names_several(vault: Vault) -> None:
    vault.add(replace(passkey(), credential_id=passkey().credential_id[:6] + b"other"))
    outcome = passkeys(vault, "remove", "0001")
    assert outcome.exit_code == 2
    assert "2 passkeys have an id that begins with 0001" in outcome.stderr
    assert states(vault) == ["active", "active", "superseded", "active"]


# --- changing ---------------------------------------------------------------------------------------------------------


def test_rename(vault: Vault) -> None:
    outcome = passkeys(vault, "rename", "0001", "ada.l", "--display-name", "Ada L.")
    assert outcome.stdout == "renamed 00010203 example.com ada.l\n"
    found = vault.find(passkey().credential_id)
    assert found is not None
    assert (found.user_name, found.user_display_name, found.use_count) == ("ada.l", "Ada L.", 3)
    assert found.modified_at != passkey().modified_at
    told = document(passkeys(vault, "rename", "0001", "ada", "--json"))
    assert [(one["userName"], one["userDisplayName"]) for one in told["renamed"]] == [("ada", "Ada L.")]


def test_removed_passkeys_can_be_restored_until_they_are_purged(vault: Vault) -> None:
    before = vault.find(passkey().credential_id)
    outcome = passkeys(vault, "remove", "0001", "0102")
    assert outcome.stdout == "removed 00010203 example.com ada\nremoved 01020304 another.example bob\n"
    assert states(vault) == ["deleted", "deleted", "superseded"]
    assert passkeys(vault, "remove", "0001").stdout == ""  # it is removed already
    assert passkeys(vault, "list").stdout == ""
    told = document(passkeys(vault, "restore", "0001", "0203", "--json"))
    assert [one["userName"] for one in told["restored"]] == ["ada", "old"]
    assert states(vault) == ["active", "deleted", "active"]
    after = vault.find(passkey().credential_id)
    assert before is not None
    assert after is not None
    assert replace(after, modified_at=0) == replace(before, modified_at=0)
    assert passkeys(vault, "purge", "--all", "--yes").stdout == "purged 01020304 another.example bob\n"
    assert passkeys(vault, "restore", "0102").exit_code == 2
    assert states(vault) == ["active", "active"]


def test_one_wrong_name_changes_nothing(vault: Vault) -> None:
    assert passkeys(vault, "remove", "0001", "ffff").exit_code == 2
    assert states(vault) == ["active", "active", "superseded"]


def test_what_is_in_use_is_not_purged(vault: Vault) -> None:
    outcome = passkeys(vault, "purge", "0203", "0001", "--yes")
    assert outcome.exit_code == 2
    assert "hybrid: error: the passkey 00010203 is in use\n" in outcome.stderr
    assert len(vault.credentials()) == 3


@pytest.mark.parametrize("words", [(), ("--all", "0001")])
def test_what_to_purge_must_be_clear(vault: Vault, words: tuple[str, ...]) -> None:
    assert passkeys(vault, "purge", "--yes", *words).exit_code == 2
    assert len(vault.credentials()) == 3


def test_purged_ones_are_named_for_programs(vault: Vault) -> None:
    told = document(passkeys(vault, "purge", "0203", "--yes", "--json"))
    assert told == {"purged": ["AgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fAAE"]}
    assert document(passkeys(vault, "purge", "--all", "--json")) == {"purged": []}


# --- verify and rekey -------------------------------------------------------------------------------------------------


def test_verify_signs_with_every_key(vault: Vault) -> None:
    outcome = passkeys(vault, "verify")
    assert (outcome.exit_code, outcome.stdout) == (0, "checked 3 good 3\n")
    assert document(passkeys(vault, "verify", "--json")) == {
        "vault": str(vault.path),
        "generation": 3,
        "previousGeneration": 2,
        "checked": 3,
        "problems": [],
    }


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "garbage": ({"private_key": b"garbage"}, "its key cannot be read"),
    "another algorithm": ({"algorithm": -8}, "its key is not one of its algorithm"),
    "no algorithm": ({"algorithm": -65535}, "its algorithm (-65535) is not known here"),
    "synced and not": ({"backed_up": True}, "it is marked as synced, and as one that must not be"),
    "short secret": ({"secret_uv": b"short"}, "its secret for the prf extension has a wrong length"),
    "no account": ({"user_id": b""}, "its id, site or account is empty"),
    "same id": ({"credential_id": passkey().credential_id}, "another passkey has the same id"),
}


@pytest.mark.parametrize(("changes", "said"), BAD.values(), ids=BAD.keys())
def test_verify_names_what_is_bad(vault: Vault, changes: dict[str, Any], said: str) -> None:
    vault.add(replace(passkey(5, "bad"), **changes))
    outcome = passkeys(vault, "verify")
    assert outcome.exit_code == 2
    assert f" example.com bad: {said}\n" in outcome.stdout
    assert "hybrid: error: some passkeys in the vault do not work\n" in outcome.stderr
    told = passkeys(vault, "verify", "--json")
    assert said in [one["problem"] for one in json.loads(told.stdout)["problems"]]
    assert told.exit_code == 2


def test_verify_looks_at_the_copy(vault: Vault) -> None:
    vault.path.with_name("v.previous").write_bytes(b"")
    outcome = passkeys(vault, "verify")
    assert (outcome.exit_code, outcome.stdout) == (0, "checked 3 good 3\n")
    assert outcome.stderr == WARNING + "hybrid: there is no readable copy of the generation before\n"


def test_rekey_to_a_key_file(vault: Vault, tmp_path: Path) -> None:
    assert passkeys(vault, "rekey", "--new-vault-key", f"file:{tmp_path / 'k'}").exit_code == 0
    assert passkeys(vault, "list").exit_code == 2
    outcome = passkeys(vault, "list", key=f"file:{tmp_path / 'k'}")
    assert (outcome.exit_code, len(outcome.stdout.splitlines())) == (0, 3)
    assert WARNING not in outcome.stderr


def test_failures_for_programs(vault: Vault) -> None:
    outcome = passkeys(vault, "show", "ffff", "--json-events")
    events = [json.loads(line) for line in outcome.stderr.splitlines()]
    assert [event["event"] for event in events] == ["warning", "error"]
    assert (outcome.exit_code, events[1]["identifier"]) == (2, "usage")
