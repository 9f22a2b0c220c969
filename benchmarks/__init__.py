"""How long things take, as ratios of pairs that run side by side. `make bench` prints them; no test asserts a time."""
