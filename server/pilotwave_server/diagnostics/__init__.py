"""What devices say of themselves to one person, sealed: asked for here, kept for a week, unread."""
