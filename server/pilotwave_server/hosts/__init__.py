"""The server processes of a fleet, on one host or several: which of them live, and whom devices
reach."""
