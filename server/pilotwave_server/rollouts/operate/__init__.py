"""What people do with rollouts: create, preview, steer, look."""
