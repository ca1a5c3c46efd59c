"""Learning over a fleet: what an update must be, and how one result is made of many."""
