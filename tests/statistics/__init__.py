"""Statistics that an observer could make: of consecutive knocks, and of the answers to them."""
