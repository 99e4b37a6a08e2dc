"""A model that a worker has served is known to the fleet from then on, worker or not."""

import json
import time

import redis

from producer import keys


def record_served_model(client: "redis.Redis", model: str) -> None:
    """Make ``model`` known; what is known already keeps its date."""
    client.hsetnx(keys.MODELS, model, json.dumps({"declared_by": "worker", "since": time.time()}))
