"""The `pilotwave` command: speaks to the server over HTTP and knows only the protocol."""
