"""`reference.json`: what a variant's answers look like on inputs like those that it is made for."""
