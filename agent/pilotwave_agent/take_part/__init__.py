"""The short-lived process that takes part in training plans."""
