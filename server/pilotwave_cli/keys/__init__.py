"""`pilotwave keys`: keys, TUF documents, signatures, rotation."""
