"""Models that we make ourselves, for machines that reach no model hub."""
