"""Command groups of the full install; each module has one ``register(app)``."""
