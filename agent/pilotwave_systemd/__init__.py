"""What the server and the agent have in common as systemd services: the text of a unit with its
sandbox, its installation and removal, and what a running service tells systemd."""
