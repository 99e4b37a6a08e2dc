"""The operator's page at ``/ui``: rendered on the server, works without scripts, loads nothing from elsewhere."""
