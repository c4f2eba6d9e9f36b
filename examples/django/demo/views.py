"""A greeting, an upload, a stream, an error and a page that is missing."""

import hashlib

from django.http import HttpResponse, HttpResponseNotFound, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt


def index(request):
    return HttpResponse("hello from django\n", content_type="text/plain")


@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for piece in file.chunks():
        digest.update(piece)
    return JsonResponse({"name": file.name, "size": file.size, "sha256": digest.hexdigest()})


def stream(request):
    lines = int(request.GET.get("lines", 10))
    return StreamingHttpResponse((f"line {n}\n" for n in range(lines)), content_type="text/plain")


def error(request):
    raise RuntimeError("the view failed")


def missing(request):
    return HttpResponseNotFound("nothing here\n", content_type="text/plain")
