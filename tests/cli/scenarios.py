"""Every transcript by name. The names of files in ``golden/``."""

from __future__ import annotations

from tests.cli import scenarios_laptop, scenarios_phone, scenarios_usage
from tests.cli.transcript import Scenario

SCENARIOS: dict[str, Scenario] = {
    **scenarios_usage.SCENARIOS,
    **scenarios_laptop.SCENARIOS,
    **scenarios_phone.SCENARIOS,
}
