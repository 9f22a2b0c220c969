"""What the phone holds: the CTAP2 engine, its store, the person in front. Knows no tunnel."""
