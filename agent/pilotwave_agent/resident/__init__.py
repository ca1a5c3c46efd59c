"""The agent that stays: when it polls, reports and starts a child for the work."""
