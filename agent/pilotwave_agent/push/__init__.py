"""Being called by the server: a channel that is kept open, where the settings ask for one.

A call only brings the next poll forward, so nothing that comes this way needs to be believed.
"""
