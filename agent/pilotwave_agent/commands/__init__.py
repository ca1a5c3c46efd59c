"""The commands of `pilotwave-agent` that end by themselves."""
