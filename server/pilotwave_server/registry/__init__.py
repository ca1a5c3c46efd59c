"""What was published: models, versions, variants, and the TUF metadata that makes them trusted."""
