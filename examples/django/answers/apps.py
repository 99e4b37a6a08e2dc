"""The app, as Django knows it."""

from django.apps import AppConfig


class AnswersConfig(AppConfig):
    """Questions and their answers."""

    name = "answers"
