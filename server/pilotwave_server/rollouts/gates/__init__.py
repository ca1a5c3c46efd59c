"""Gates: the tests that a wave must pass, safe to look at on each report."""
