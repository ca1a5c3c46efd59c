"""Downloads by devices: whose turn it is, how fast they go, and what was sent to whom."""
