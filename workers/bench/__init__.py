"""``fleet bench``: the same jobs and engine arguments through this fleet and what one could use instead of it."""
