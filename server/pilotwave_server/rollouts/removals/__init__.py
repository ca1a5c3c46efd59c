"""Orders to take a model off devices."""
