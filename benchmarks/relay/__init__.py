"""The relay beside yardsticks, as ratios in one run: CPU, memory, latency; plain and TLS; in peace and attacked."""
