"""The example for websites, in the browser of these tests."""

from __future__ import annotations

from examples.cross_device import test_sign_in as example

pytestmark = example.pytestmark

address = example.address
test_register_and_sign_in = example.test_register_and_sign_in
test_the_person_declines = example.test_the_person_declines
test_an_iphone_without_a_passkey = example.test_an_iphone_without_a_passkey
test_the_phone_is_too_far_away = example.test_the_phone_is_too_far_away


def test_every_test_of_the_example_runs_here() -> None:
    assert {name for name in vars(example) if name.startswith("test_")} <= set(globals())
