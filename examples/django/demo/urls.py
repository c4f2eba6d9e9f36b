"""Which view answers what."""

from django.urls import path

from demo import views

urlpatterns = [
    path("", views.index),
    path("upload", views.upload),
    path("stream", views.stream),
    path("error", views.error),
    path("missing", views.missing),
]
