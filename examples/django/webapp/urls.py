"""The project's addresses: those of its one app."""

from django.urls import include, path

urlpatterns = [path("", include("answers.urls"))]
