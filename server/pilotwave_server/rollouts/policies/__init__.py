"""Policies: reusable, versioned recipes of waves, gates, pace, windows and conditions."""
