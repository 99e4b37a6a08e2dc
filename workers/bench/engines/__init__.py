"""Engines without any queue: what every driver but the fleet's generates with, each its own copy."""
