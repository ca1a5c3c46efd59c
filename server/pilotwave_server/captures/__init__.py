"""Cases that devices captured, sealed for their reader: stored here, opened elsewhere."""
