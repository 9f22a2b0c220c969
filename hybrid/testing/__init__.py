"""For people who test: a virtual BlueZ, a real browser, and peers that misbehave."""
