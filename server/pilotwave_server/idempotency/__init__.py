"""Requests that are done once, however often they are sent. It knows no other slice."""
