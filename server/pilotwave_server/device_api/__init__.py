"""The routes that devices use: enrol, check in, poll. They hold no rules of their own."""

from __future__ import annotations
