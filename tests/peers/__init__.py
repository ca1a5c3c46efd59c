"""Simulated peers: what stands at the other end of the wire in tests."""
