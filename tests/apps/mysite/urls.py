"""Views that tests ask for: a greeting, an upload, a stream, a redirect and an error."""

import hashlib

from django.http import HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


def hello(request):
    return HttpResponse("hello from django", content_type="text/plain")


@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return JsonResponse({"name": file.name, "size": file.size, "sha256": digest.hexdigest(), "note": request.POST["note"]})


def stream(request):
    count = int(request.GET.get("count", 10))
    return StreamingHttpResponse((f"line {n}\n" for n in range(count)), content_type="text/plain")


def error(request):
    raise RuntimeError("the view failed")


def away(request):
    return HttpResponseRedirect("/hello")


urlpatterns = [
    path("hello", hello),
    path("upload", upload),
    path("stream", stream),
    path("error", error),
    path("away", away),
]
