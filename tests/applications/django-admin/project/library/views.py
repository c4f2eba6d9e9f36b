from django.http import FileResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404

from library.models import Document


def documents(request):
    return StreamingHttpResponse(f"{each.pk} {each.title}\n" for each in Document.objects.order_by("pk"))


def document(request, number):
    return FileResponse(get_object_or_404(Document, pk=number).file.open(), as_attachment=True)
