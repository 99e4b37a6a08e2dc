"""``fleet doctor`` on a worker's host: each module looks at one thing and says what to do about it."""
