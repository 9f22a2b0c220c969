"""The outside world, one technology per file. Each implements ports and imports no other adapter.

`bluez_bus` is what the two Bluetooth adapters share: calls on the system bus and the choice of an adapter.
"""
