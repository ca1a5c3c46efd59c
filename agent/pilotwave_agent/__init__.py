"""The device: polls, verifies, self-tests, swaps, watches and reports."""
