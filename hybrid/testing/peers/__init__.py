"""Peers that misbehave on purpose, by name: `phones`, `clients`, and `relays` between them.

Each breaks one rule and follows all others. They run over any scanner, advertiser and tunnel service: in memory or over
real radios and sockets. They are for tests of hybrid programs and hold no real passkeys.
"""
