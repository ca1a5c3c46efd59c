"""Masked rounds: groups of devices, what each sent in which phase, and the sum of a whole group."""
