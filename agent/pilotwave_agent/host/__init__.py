"""The operating system under the agent: disk, clock, locks, logs, where files lie."""
