"""Answering one job, in five steps: decode, admit, generate, classify, record. Knows no Celery, no kombu, no Redis."""
