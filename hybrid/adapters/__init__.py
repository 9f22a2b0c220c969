"""The outside world, one technology per file. Each implements ports and imports no sibling."""
