"""`pilotwave publish` and `pilotwave golden`: from model files to a signed version."""
