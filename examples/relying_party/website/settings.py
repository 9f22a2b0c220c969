"""What differs between one installation and another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """One website.

    `rp_id`: the domain that passkeys are bound to; `origins`: where its pages live, the first is the home; `related`:
    further origins that may use the RP id (Web Authentication Level 3, "Related Origin Requests"); `name`: for people;
    `database`: an SQLite file, None for memory; `provider_list`: a community list of AAGUIDs, JSON;
    `attestation_roots`: PEM file of CAs, one of which must vouch for passkeys of the stricter classes; `open_classes`:
    whether visitors choose the class of their account by themselves, administrators included, for demonstrations.
    Times in seconds.
    """

    rp_id: str
    origins: tuple[str, ...]
    related: tuple[str, ...] = ()
    name: str = "Harbour"
    database: Path | None = None
    provider_list: Path | None = None
    attestation_roots: Path | None = None
    open_classes: bool = False
    challenge_lifetime: int = 300
    session_lifetime: int = 12 * 3600
    fresh: int = 300  # how long after a signature the account's keys and codes may be changed

    @property
    def accepted_origins(self) -> frozenset[str]:
        """Every origin whose client data are believed: an exact list, no suffix rule."""
        return frozenset((*self.origins, *self.related))

    @property
    def secure(self) -> bool:
        """Whether cookies are for https only. http is accepted by browsers for localhost alone."""
        return self.origins[0].startswith("https://")
