"""The fleet in memory: one snapshot for all devices, one small record for each."""
