"""The protocol core: bytes in, decisions out."""
