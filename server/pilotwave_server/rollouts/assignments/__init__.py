"""What each device should run, and why: baselines, pins, `resolve`."""
