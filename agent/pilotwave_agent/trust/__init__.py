"""What is believed: TUF metadata, the time floor, and the directives that they vouch for."""
