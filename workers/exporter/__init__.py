"""``fleet exporter``: what no single worker knows, for Prometheus; and for Flower what became of dead workers' jobs."""
