"""`pilotwave calibrate`: from which confidence on a small model's answers are left to it."""
