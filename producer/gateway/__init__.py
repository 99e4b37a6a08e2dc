"""The HTTP door: OpenAI's API and the fleet's own jobs, over :class:`producer.AsyncProducer`. Extra ``gateway``."""
