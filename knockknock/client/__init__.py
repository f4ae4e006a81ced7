"""The client: from a request to a SYN, and to the connection behind it."""
