"""What rollouts do by themselves: a pure plan, a small executor for each action, a loop."""
