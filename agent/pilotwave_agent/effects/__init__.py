"""The steps of an update, carried out: fetch, try, switch, watch, remove."""
