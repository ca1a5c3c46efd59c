"""The server: registry, devices, groups, rollouts, and the faces that show them."""
