"""What an observer's statistics would find: in consecutive knocks, and in the answers to them."""
