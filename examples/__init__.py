"""One file per question that a user asks. Run one with `python -m examples.NAME`."""
