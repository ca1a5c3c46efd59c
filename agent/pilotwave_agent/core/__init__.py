"""What the device decides and remembers: pure, but for the journal on the disk."""
