"""The client: seals a request, sends the knock, and connects to the port that it opens."""
