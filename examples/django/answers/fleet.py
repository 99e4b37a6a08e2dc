"""The process' two producers. They connect when they are first used, so importing this costs nothing.

``producer`` is for sync views, whose threads share it; ``async_producer`` for async ones, all of which run in the one
event loop that an ASGI server has. A process that is forked later makes connections of its own.
"""

from django.conf import settings

from producer import AsyncProducer, Producer

producer = Producer(settings.FLEET_REDIS_URL)
async_producer = AsyncProducer(settings.FLEET_REDIS_URL)
