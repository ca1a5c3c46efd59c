"""Where a server's own keys lie: files of its data folder, or a table that several hosts share.

What a key is good for is decided by those who use it (`registry/keys.py`, `device_api/tokens.py`).
"""
