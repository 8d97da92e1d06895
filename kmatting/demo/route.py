"""The route `POST /predict`: a photo comes in, a picture goes out. It needs no Gradio."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

from kmatting.demo.studio import OPTIONS, SIZES, Studio, TooLargeError
from kmatting.errors import Error
from kmatting.images import written_suffixes
from kmatting.pictures.kinds import KINDS

_IN_MEMORY = 1 << 20  # bytes of an upload; larger ones wait on the disk
_EXPECTED = (
    "Expected a photo: the file 'photo' of a form, as by curl -F photo=@photo.jpg, or the body of "
    "the request with a Content-Type such as image/jpeg; received "
)
_MEDIA_TYPES = {".jpg": "image/jpeg", ".tif": "image/tiff"}
_Files = tuple[IO[bytes], IO[bytes] | None]  # a photo, and a background


def make_app(studio: Studio, most_waiting: int) -> FastAPI:
    """Makes an application of this route alone; further photos than may wait get status 503."""
    app = FastAPI(title="kmatting", docs_url=None, redoc_url=None)
    for error in (StarletteHTTPException, Error, MemoryError, Exception):
        app.add_exception_handler(error, _answer_error)
    places = asyncio.Semaphore(most_waiting + 1)  # one is at work
    turn = asyncio.Lock()

    @app.post("/predict", response_class=Response, openapi_extra=_described())
    async def predict(request: Request) -> Response:
        """Cuts the subject out of a photo."""
        if places.locked():
            raise HTTPException(503, "Too many photos wait. Try again later.", {"Retry-After": "5"})
        async with places, _files_of(request) as files, turn:
            if await request.is_disconnected():
                return Response()
            return await run_in_threadpool(_make, studio, dict(request.query_params), *files)

    return app


def _make(
    studio: Studio, options: dict[str, str], photo: IO[bytes], background: IO[bytes] | None
) -> Response:
    """Makes the picture that a query asks for."""
    kind, suffix = options.pop("what", "cutout"), f".{options.pop('format', 'png')}"
    scene = background and background.read()
    colour, size = options.pop("background", None), options.pop("size", None)
    made = studio.make(
        photo.read(),
        (kind,),
        options,
        formats={kind: suffix},
        colour=colour,
        background=scene,
        size=size,
    )
    headers = {"Kmatting-Remarks": "; ".join(made.remarks)} if made.remarks else {}
    kind = _MEDIA_TYPES.get(suffix, f"image/{suffix[1:]}")
    return Response(made.pictures[0].encode(), 200, headers, kind)


@contextlib.asynccontextmanager
async def _files_of(request: Request) -> AsyncIterator[_Files]:
    """Receives the files of a request: of a form, or its body."""
    kind = request.headers.get("content-type", "").partition(";")[0].lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=2, max_fields=0) as form:
            files = {name: file.file for name, file in form.items() if isinstance(file, UploadFile)}
            if "photo" not in files or not files.keys() <= {"photo", "background"}:
                raise HTTPException(400, f"{_EXPECTED}files named {', '.join(files) or 'nothing'}.")
            yield files["photo"], files.get("background")
    elif kind.startswith("image/") or kind == "application/octet-stream":
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            async for part in request.stream():
                file.write(part)
            if not file.tell():
                raise HTTPException(400, f"{_EXPECTED}an empty body.")
            file.seek(0)
            yield file, None
    else:
        raise HTTPException(415, f"{_EXPECTED}{kind[:80] or 'no Content-Type'}.")


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    """Says in JSON what is wrong. Faults of ours are logged by the server, with their traceback."""
    if isinstance(error, StarletteHTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, MemoryError):
        return JSONResponse({"error": "Not enough memory for a photo of this size."}, 413)
    if isinstance(error, Error):
        return JSONResponse({"error": str(error)}, 413 if isinstance(error, TooLargeError) else 422)
    return JSONResponse({"error": "Internal error, see the log of the server."}, 500)


def _described() -> dict[str, Any]:
    """Describes query and body for `/openapi.json`."""
    formats = [suffix[1:] for suffix in written_suffixes()]
    fields = {
        "what": f"{', '.join(KINDS)} (default: cutout)",
        "format": f"of the picture: {', '.join(formats)} (default: png)",
        "background": "colour of a composite, such as white or #2f855a",
        "size": f"pixels a side that the network sees, {SIZES[0]} to {SIZES[1]}, if it takes any",
        **{
            name: each.metadata["option"].help % {"default": each.default}
            for name, each in OPTIONS.items()
        },
    }
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {"photo": file, "background": file},
        "required": ["photo"],
    }
    return {
        "parameters": [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
            for name, text in fields.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, "image/*": {"schema": file}},
        },
    }
