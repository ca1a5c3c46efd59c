"""`make demo`: the whole chain on this machine, with nothing in it that is not real."""
