"""What needs a person's attention, and who has seen to it."""
