"""Commands for those who work on Pilotwave itself."""
