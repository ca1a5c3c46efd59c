"""Devices as operators find, see and steer them."""
