"""The app's addresses."""

from django.urls import path

from answers import views

urlpatterns = [
    path("", views.ask, name="ask"),
    path("answers/<uuid:job_id>", views.look, name="look"),
    path("answers/<uuid:job_id>/events", views.follow, name="follow"),
    path("answers/<uuid:job_id>/cancel", views.cancel, name="cancel"),
]
