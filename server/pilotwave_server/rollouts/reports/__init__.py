"""What check-ins say of rollouts: outcomes and samples, stored."""
