"""Tell others what happened: signed HTTP calls and an event stream."""
