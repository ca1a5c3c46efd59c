"""Have a fleet learn: sign a plan, start its round, take the result."""
