"""The Celery pool that feeds one resident engine: everything before and after generation stays Celery's own."""
