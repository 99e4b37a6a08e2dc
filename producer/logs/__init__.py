"""Log lines of every process of the fleet: what is in them, how they are written, and where to."""
