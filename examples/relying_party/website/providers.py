"""Who keeps a passkey, by its AAGUID. Names for people: without attestation an AAGUID is only a claim."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from hybrid.passkeys.aaguids import provider_name

_log = logging.getLogger(__name__)
_MAX_NAME = 60


class ProviderNames:
    """The names that fido-hybrid brings, and those of a community list, if there is one and it holds any.

    `path`: JSON, ``{AAGUID: {"name": ...}}``, as passkey-authenticator-aaguids publishes. Its makers warn that it may
    become empty one day, so an empty or broken one is no failure: then only our names are known.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._listed = {} if path is None else _read(path)

    def of(self, aaguid: UUID) -> str | None:
        """The provider's name; None for zeros and for those nobody knows."""
        if not aaguid.int:
            return None
        return provider_name(aaguid) or self._listed.get(aaguid)


def _read(path: Path) -> dict[UUID, str]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(listed, Mapping):
            raise ValueError("not a map")
        names = {UUID(aaguid): str(entry["name"])[:_MAX_NAME] for aaguid, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("the list of providers cannot be used (%s); only our own names are shown", type(error).__name__)
        return {}
    if not names:
        _log.warning("the list of providers is empty; only our own names are shown")
    return names
