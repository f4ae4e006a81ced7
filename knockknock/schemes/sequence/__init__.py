"""Port sequences: their profile, and how they are recognised."""
