"""The `hybrid` command: arguments, terminal, sentences. Nothing in here knows the protocol's bytes."""
