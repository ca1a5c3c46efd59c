"""HTTP and files: the line to the server, mirrors, downloads, deltas."""
