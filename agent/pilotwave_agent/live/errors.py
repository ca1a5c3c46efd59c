"""What can go wrong for an application.

LiveError
├── NoVersion    no version is on this device (yet)
└── LoadFailed   there are versions, and none of them can be opened
"""

from __future__ import annotations


class LiveError(Exception):
    """What `LiveModel` raises of its own; what a runtime raises comes through as it is."""


class NoVersion(LiveError):
    """No version of the model is on this device, or none came in the time given."""


class LoadFailed(LiveError):
    """No version on this device can be opened; the sentence says why for the newest."""
