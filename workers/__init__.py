"""The worker side: supervisor, worker processes, the engine behind Celery's pool, and what operators see."""
