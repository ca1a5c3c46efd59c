"""Push: devices that keep a channel open are called to poll when their directive changes.

A call says "poll now" and nothing else, so one that is lost, forged or repeated does no harm.
"""
