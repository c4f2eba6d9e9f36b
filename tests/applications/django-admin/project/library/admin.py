from django.contrib import admin

from library.models import Document


@admin.register(Document)
class DocumentAdmin(admin.ModelAdmin):
    list_display = ["title", "file"]
    search_fields = ["title"]
