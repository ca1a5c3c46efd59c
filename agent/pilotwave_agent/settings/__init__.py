"""What the owner of the device may set, in `agent.toml`."""
