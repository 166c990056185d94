"""The application: the response to each address."""

from __future__ import annotations

import functools
import json
import pathlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from absl import logging
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from u2net_tf.config.serving import ServerConfig
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.inference.segmentation import Segmentation
from u2net_tf.inference.segmenter import Segmenter
from u2net_tf.plan.domains import Domain
from u2net_tf.serving.limits import LimitUpload, QueueFullError, RequestQueue
from u2net_tf.serving.uploads import save_images
from u2net_tf.volumes import dicom_segmentation
from u2net_tf.volumes.class_colours import class_colour
from u2net_tf.volumes.label_map_files import OUTPUT_SUFFIXES

_PAGE = pathlib.Path(__file__).parent / "page"
# Address -> file, media type and further headers.
_FILES: dict[str, tuple[str, str, dict[str, str]]] = {
    "/": ("index.html", "text/html", {}),
    "/page.js": ("page.js", "text/javascript", {}),
    "/page.css": ("page.css", "text/css", {}),
    "/niivue.js": (
        "niivue.umd.js.gz",
        "text/javascript",
        {"Content-Encoding": "gzip"},
    ),
}
# Nothing is loaded from elsewhere. NiiVue decodes its fonts from data: addresses.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "worker-src 'self' blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_DEFAULT_FORMAT = "nifti"
_FORMATS = tuple(name for name in OUTPUT_SUFFIXES if name != "input")
_RETRY_SECONDS = 10
# The client no longer reads the response.
_DISCONNECTED = 499

Handler = Callable[[Request], Awaitable[Response]]


def make_app(
    model: Segmenter, config: ServerConfig, *, hosts: Sequence[str]
) -> Starlette:
    """Returns the application of a model.

    Args:
      model: segments the images.
      config: limits of the server.
      hosts: host names that requests may be addressed to. Others are rejected, so that
        no web site can reach the server under its own name.
    """
    # Loads every domain now: a model that cannot be loaded is reported at the start.
    domains = [describe_domain(domain) for domain in model.plan.domains]
    queue = RequestQueue(config.max_queue)

    async def get_domains(request: Request) -> Response:
        return JSONResponse(domains)

    async def post_segment(request: Request) -> Response:
        return await _segment(request, model, queue, config)

    routes = [
        Route("/domains", get_domains),
        Route("/segment", _with_errors(post_segment), methods=["POST"]),
        *(Route(address, _file_handler(address)) for address in _FILES),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
            Middleware(LimitUpload, max_bytes=int(1e6 * config.max_upload_mb)),
        ],
    )


def describe_domain(domain: Domain) -> dict[str, Any]:
    """Describes a domain for `/domains`: its modalities and its classes."""
    return {
        "name": domain.name,
        "modalities": list(domain.modalities),
        "spacing_mm": list(domain.spacing_mm),
        "classes": [
            {
                "name": label.name,
                "value": label.values[0],
                "color": class_colour(number),
            }
            for number, label in enumerate(domain.labels)
            if number
        ],
    }


def _file_handler(address: str) -> Handler:
    name, media_type, headers = _FILES[address]

    async def get_file(request: Request) -> Response:
        return FileResponse(
            _PAGE / name, media_type=media_type, headers=_HEADERS | headers
        )

    return get_file


def _with_errors(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except QueueFullError:
            return JSONResponse(
                {"error": "the server is busy: the queue is full"},
                status_code=503,
                headers={"Retry-After": str(_RETRY_SECONDS)},
            )
        except ClientDisconnect:
            return Response(status_code=_DISCONNECTED)
        except InputError as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        except StoppedError as error:
            # The server lacks something, such as a package.
            return JSONResponse({"error": str(error)}, status_code=500)

    return handle


async def _segment(
    request: Request, model: Segmenter, queue: RequestQueue, config: ServerConfig
) -> Response:
    domain, suffix = _read_query(request)
    async with queue.place():
        with tempfile.TemporaryDirectory(prefix="u2net-") as name:
            folder = pathlib.Path(name)
            paths = await save_images(request, folder)
            async with queue.turn:
                if await request.is_disconnected():
                    return Response(status_code=_DISCONNECTED)
                return await run_in_threadpool(
                    _answer, model, domain, paths, folder, suffix, config
                )


def _read_query(request: Request) -> tuple[str | None, str]:
    given = request.query_params.multi_items()
    query = dict(given)
    if len(query) < len(given):
        raise InputError(
            "query",
            expected="each name once",
            received=", ".join(name for name, _ in given),
        )
    domain = query.pop("domain", None)
    output_format = query.pop("output_format", _DEFAULT_FORMAT)
    if query:
        raise InputError(
            "query", expected="domain and output_format", received=", ".join(query)
        )
    if output_format not in _FORMATS:
        raise InputError(
            "`output_format`",
            expected=f"one of {', '.join(_FORMATS)}",
            received=output_format,
        )
    return domain, OUTPUT_SUFFIXES[output_format]


def _answer(
    model: Segmenter,
    domain: str | None,
    paths: Sequence[pathlib.Path],
    folder: pathlib.Path,
    suffix: str,
    config: ServerConfig,
) -> Response:
    start = time.monotonic()
    target = folder / f"labels{suffix}"
    try:
        if suffix == dicom_segmentation.SUFFIX:
            dicom_segmentation.require_dicom(paths[0])
        found = model(list(paths), domain, max_memory_gb=config.max_memory_gb)
        found.save(target)
    except InputError as error:
        raise InputError(
            _without_folder(error.where, folder),
            expected=_without_folder(error.expected, folder),
            received=_without_folder(str(error.received), folder),
            hint=_without_folder(error.hint, folder),
        ) from None
    # No names of files: they may name a patient.
    logging.info("%s: segmented in %.1f s", found.domain.name, time.monotonic() - start)
    return _response(found, target, folder)


def _response(
    found: Segmentation, target: pathlib.Path, folder: pathlib.Path
) -> Response:
    warnings = [_without_folder(warning, folder) for warning in found.warnings]
    return Response(
        target.read_bytes(),
        media_type="application/octet-stream",
        headers={
            "Content-Disposition": f'attachment; filename="{target.name}"',
            # ASCII, as headers must be.
            "X-Volumes-Ml": json.dumps(dict(found.volumes_ml)),
            "X-Warnings": json.dumps(warnings),
            **_HEADERS,
        },
    )


def _without_folder(text: str, folder: pathlib.Path) -> str:
    """Returns the text without the path of the temporary folder."""
    return text.replace(f"{folder}/", "").replace(str(folder), "")
