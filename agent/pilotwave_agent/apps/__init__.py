"""Applications beside the agent: their heartbeats, and the socket for other languages."""
