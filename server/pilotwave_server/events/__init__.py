"""What happened in the fleet as one line of events, to be followed from any place in it."""
