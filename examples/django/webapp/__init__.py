"""The project: settings, addresses, and what the server calls."""
