"""Typed settings, read once: command line, environment, ``fleet.toml``, profile, defaults; each value knows its source.

Knows neither ``producer`` nor ``workers``. The composition root calls :func:`config.loading.load_settings` and hands
the values on; nothing else reads the environment.
"""
