from django.contrib import admin
from django.urls import path

from library.views import document, documents

urlpatterns = [path("admin/", admin.site.urls), path("", documents), path("documents/<int:number>/", document)]
