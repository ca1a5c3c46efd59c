"""Find a small delta between two files: what the server's jobs and `publish --near` use.

It needs NumPy. The format, and applying, are `pilotwave_protocol.delta`'s.
"""
