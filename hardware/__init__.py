"""Rigs and radios that need a VM, a dongle or root. Imports hybrid, never imported by it."""
