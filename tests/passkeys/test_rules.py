"""Every rule of the reference for the authenticator has a test: by its number in a name or a row, or listed here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NUMBERED = [f"m{number}" for number in range(1, 12)] + [f"g{number}" for number in range(1, 10)]

# Rules of a session (H) are kept by the machines and drivers, those of whole sections by tables of their own.
ELSEWHERE = {
    "H1 greeting with getInfo": {
        "test_get_info_comes_from_the_greeting_and_is_no_command",
        "test_get_info_can_be_asked_and_does_not_count",
        "test_get_info_command",
    },
    "H2 features": {"test_phone_answers_one_request", "test_the_greeting_byte_for_byte"},
    "H3 status byte first": {"test_other_row", "test_request_and_answer"},
    "H4 one request, an answer of its type": {
        "test_a_second_request_before_the_answer_is_the_end",
        "test_an_answer_to_nothing_is_the_end",
        "test_an_answer_of_another_type_is_the_end",
    },
    "H5 no keep-alives": {"test_every_step_may_take_its_time", "test_an_unknown_type_is_the_end_in_every_state"},
    "H6 cancelling": {
        "test_h6_cancelled_while_the_prompt_is_open_stores_nothing",
        "test_the_prompt_of_our_own_phone_is_dismissed_when_the_client_is_cancelled",
        "test_the_question_goes_with_the_client",
    },
    "H7 only clients say goodbye": {"test_request_and_answer", "test_shutdown_of_a_phone_is_a_clean_close"},
    "H8 one command, or many": {
        "test_phone_answers_one_request",
        "test_a_phone_that_serves_one_command_closes_after_a_second_request",
        "test_many_serves_until_the_client_leaves",
    },
    "H9 the hint": {
        "test_the_hint_is_enforced_only_if_it_was_stated_and_is_ga_or_mc",
        "test_another_command_than_announced_is_refused",
        "test_without_a_known_hint_any_command_goes",
    },
    "H10 time-out": {"test_h10_time_out", "test_a_question_has_its_time"},
    "H11 left without an answer": {
        "test_leaving_in_the_middle_names_the_stage",
        "test_our_client_names_a_phone_that_left_empty_handed",
    },
    "H12 selection": {"test_h12_selection", "test_other_commands_are_unknown"},
    "H13 sizes": {"test_empty_and_oversized_messages", "test_a_request_too_large_for_the_channel_is_refused"},
    "3 getInfo": {"test_get_info_literal_bytes", "test_get_info_with_a_pin", "test_the_greeting_byte_for_byte"},
    "4.3 other commands": {"test_a_phone_knows_none_of_these", "test_other_row", "test_reset_needs_consent_of_its_own"},
    "5 algorithms and signatures": {
        "test_signature_and_key",
        "test_lattice_sizes",
        "test_m4_the_first_enabled_of_the_list_is_taken",
    },
    "5 flags and counters": {
        "test_synced_passkeys_count_nothing",
        "test_counters_count_per_passkey",
        "test_m10_attestation_read_by_fido2",
    },
    "5 attestation": {"test_m10_self_attestation_signs_with_the_new_key"},
    "5.1 extensions": {
        "test_create_row",
        "test_get_row",
        "test_large_blob_key",
        "test_third_party_payment",
        "test_native_extensions_are_not_served_here",
    },
    "5.2 prf on three ways": {
        "test_prf_at_sign_in",
        "test_hmac_secret_and_native_prf_give_the_same_bytes",
        "test_the_secrets_of_prf_give_the_same_values",
    },
    "5.3 large blob": {"test_large_blob_is_written_and_read", "test_large_blob_that_does_not_fit_is_not_kept"},
    "6 status codes": {"test_g3_row", "test_m11_not_stored_is_not_answered", "test_any_bytes_give_a_documented_status"},
    "6 CBOR": {"test_cbor_row", "test_canonical", "test_not_canonical", "test_lenient_takes_unsorted_maps"},
}


def test_every_numbered_rule_has_a_row() -> None:
    text = " ".join(file.read_text() for file in HERE.glob("test_*.py")).lower()
    assert [rule for rule in NUMBERED if f"{rule} " not in text and f"test_{rule}_" not in text] == []


@pytest.fixture(scope="module")
def there() -> set[str]:
    """Names of every test function."""
    files = (ast.parse(path.read_text()).body for path in HERE.parent.rglob("test_*.py"))
    return {node.name for body in files for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("rule", ELSEWHERE)
def test_the_tests_of_a_rule_are_there(rule: str, there: set[str]) -> None:
    assert ELSEWHERE[rule] - there == set()
