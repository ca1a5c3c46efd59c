"""The engine: what to do next is planned purely, then carried out by whoever is first."""
