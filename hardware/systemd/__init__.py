"""The relay under a running systemd, in a VM."""
