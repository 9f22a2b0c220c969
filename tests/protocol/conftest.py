"""One Hypothesis profile for the core: small, so that the whole folder runs in a blink."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("core", parent=settings.get_profile("project"), max_examples=60)
settings.load_profile("core")
