"""Reports to the server: made, bounded, numbered, sent."""
