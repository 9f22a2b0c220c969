"""How does a website offer passkeys, on this device and on a phone? A whole one, with a look behind the scenes.

`website/` would be yours: accounts, passkeys, recovery, policy, an audit log, on python-fido2's server and Starlette.
`backstage/` plays the phone, the relay and, where there is no Bluetooth, the laptop. Run both with
``python -m examples.relying_party``.
"""
