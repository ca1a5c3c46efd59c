"""What the server and the devices agree on, byte for byte; imports nothing else of ours."""
