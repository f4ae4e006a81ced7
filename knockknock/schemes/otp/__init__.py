"""One-time passwords by UDP: their profile, and how they are recognised."""
