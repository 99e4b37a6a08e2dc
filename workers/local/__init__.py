"""A whole fleet on one machine: what ``fleet up`` and ``fleet demo`` start and stop."""
