"""Learning on devices: the plan that a publisher signs, and what a device answers to it."""
