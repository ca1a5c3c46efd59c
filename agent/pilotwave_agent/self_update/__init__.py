"""How the agent replaces itself: what systemd starts, and what is noted of a new agent's trial."""
