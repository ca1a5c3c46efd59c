"""A device's part in a group whose members mask their numbers."""
