"""For people who test: a virtual BlueZ, and peers that misbehave."""
