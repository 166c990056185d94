"""What the server answers, asked over HTTP."""

import gzip
import hashlib
import http.client
import io
import json
import pathlib
import re
import tempfile
import threading
import time
import urllib.parse
import uuid
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
import toy

pytest.importorskip("onnx", reason="needs the extra `export`")
pytest.importorskip("openvino", reason="needs the extra `export`")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra `serve`")
# `packed` imports onnx itself.
import packed  # noqa: E402

import u2net_tf  # noqa: E402
from tests.volumes import dicom_files  # noqa: E402
from u2net_tf.config.serving import ServerConfig  # noqa: E402
from u2net_tf.errors import StoppedError  # noqa: E402
from u2net_tf.serving import app as app_module  # noqa: E402
from u2net_tf.serving import limits  # noqa: E402
from u2net_tf.serving.app import make_app  # noqa: E402
from u2net_tf.serving.server import listen  # noqa: E402

ONE, TWO = toy.ONE.name, toy.TWO.name
PAGE = pathlib.Path(app_module.__file__).parent / "page"


class Server:
    """A server of a model in a thread; a context manager."""

    def __init__(self, model, **limits):
        self._socket = listen("127.0.0.1", 0)
        app = make_app(model, ServerConfig(**limits), hosts=["127.0.0.1"])
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}
        )

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def connect(self):
        return http.client.HTTPConnection(*self._socket.getsockname(), timeout=100)

    def ask(self, method, address, body=None, headers=()):
        """Returns status, headers and body of an answer."""
        connection = self.connect()
        try:
            connection.request(method, address, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def segment(self, files, *, field="image", **query):
        """Sends files (name, content) to be segmented."""
        body, headers = encode(files, field)
        address = f"/segment?{urllib.parse.urlencode(query)}"
        return self.ask("POST", address, body, headers)


def encode(files, field="image"):
    boundary = uuid.uuid4().hex
    parts = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; name={field}; "
        f'filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return parts + f"--{boundary}--\r\n".encode(), headers


def draw_nifti(seed=0):
    image = np.random.default_rng(seed).uniform(1, 9, (12, 11, 10)).astype(np.float32)
    return nib.Nifti1Image(image, np.diag([-1, 1, 2, 1])).to_bytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "organs.u2net"
    return u2net_tf.load(packed.write(path, packed.make_members()))


@pytest.fixture(scope="module")
def server(model):
    with Server(model) as server:
        yield server


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch):
    """Every request leaves the folder of temporary files empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


def expected_labels(model, files, domain, suffix, folder):
    paths = []
    for name, content in files:
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    found = model(paths, domain=domain)
    found.save(folder / f"expected{suffix}")
    return found, (folder / f"expected{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("output_format", "suffix"),
    [(None, ".nii.gz"), ("nii", ".nii"), ("nrrd", ".nrrd"), ("seg_nrrd", ".seg.nrrd")],
)
def test_the_label_map_is_that_of_the_model(
    server, model, output_format, suffix, tmp_path
):
    files = [("t2.nii", draw_nifti()), ("adc.nii", draw_nifti(1))]
    query = {"output_format": output_format} if output_format else {}
    status, headers, body = server.segment(files, domain=TWO, **query)
    assert status == 200, body
    found, expected = expected_labels(model, files, TWO, suffix, tmp_path)
    assert found.labels.any()
    if suffix == ".nii.gz":
        # The time is stored in the compressed file.
        body, expected = gzip.decompress(body), gzip.decompress(expected)
    assert body == expected
    assert json.loads(headers["X-Volumes-Ml"]) == dict(found.volumes_ml)
    assert headers["Content-Disposition"] == f'attachment; filename="labels{suffix}"'
    assert json.loads(headers["X-Warnings"]) == list(found.warnings)


def test_modalities_are_taken_in_their_order(server):
    files = [("t2.nii", draw_nifti()), ("adc.nii", draw_nifti(1))]
    answers = [
        server.segment(order, domain=TWO, output_format="nii")[2]
        for order in (files, files[::-1])
    ]
    assert answers[0] != answers[1]


def test_a_dicom_series(server, tmp_path):
    series = dicom_files.make_series(num_slices=8, size=9)
    paths = sorted(dicom_files.save(tmp_path / "series", series).iterdir())
    files = [(f"IM{n}", path.read_bytes()) for n, path in enumerate(paths)]
    status, _, body = server.segment(files, domain=ONE)
    assert status == 200, body
    labels = nib.Nifti1Image.from_bytes(gzip.decompress(body))
    assert labels.shape == (9, 9, 8)
    status, _, body = server.segment(files[:1], domain=ONE)
    assert status == 422
    assert "one slice. Use all slices of the series, or the folder" in str(body)
    status, _, body = server.segment([*files, ("scan.nii", draw_nifti())], domain=ONE)
    assert status == 422
    assert "one DICOM series, or one file per modality. Received: both" in str(body)


def test_domains(server):
    status, _, body = server.ask("GET", "/domains")
    assert status == 200
    one, two = json.loads(body)
    assert one == {
        "name": ONE,
        "modalities": ["CT"],
        "spacing_mm": [1.0, 1.0, 1.0],
        "classes": [{"name": "organ", "value": 1, "color": "#ff4d4d"}],
    }
    assert [row["value"] for row in two["classes"]] == [4, 2]


@pytest.mark.parametrize(
    ("files", "query", "message"),
    [
        ([("a.nii", draw_nifti())], {"domain": "X"}, "`domain`: expected one of"),
        ([("a.nii", draw_nifti())], {}, "`domain`: expected one of .* Received: none"),
        ([("a.nii", draw_nifti())], {"domain": TWO}, r"^image_0\.nii: expected 2 mod"),
        ([("a.nii", b"no")], {"domain": ONE}, r"^image_0\.nii: "),
        ([("a.txt", b"no")], {"domain": ONE}, r"^image_0\.dcm: expected DICOM, or"),
        ([], {"domain": ONE}, "`image`: expected one file or several"),
        (
            [("a.nii", draw_nifti())],
            {"domain": ONE, "output_format": "png"},
            "`output_format`: expected one of nifti, .* Received: png",
        ),
        (
            [("a.nii", draw_nifti())],
            {"domain": ONE, "output_format": "dicom_seg"},
            "`output_format`: expected DICOM scans for dicom_seg. Received: image_0",
        ),
        ([("a.nii", draw_nifti())], {"domain": ONE, "overlap": 1}, "^query: .*overlap"),
    ],
)
def test_bad_requests(server, files, query, message):
    status, headers, body = server.segment(files, **query)
    assert (status, headers["Content-Type"]) == (422, "application/json")
    error = json.loads(body)["error"]
    assert re.search(message, error), error
    assert "temporary" not in error


def test_other_fields_are_refused(server):
    status, _, body = server.segment([("a", b"")], field="scan", domain=ONE)
    assert status == 422
    assert json.loads(body)["error"] == (
        "form: expected files named image. Received: scan"
    )


def test_a_form_without_its_end_is_refused(server, tmp_path):
    """Otherwise, a DICOM series would lose its last slice."""
    series = dicom_files.make_series(num_slices=8, size=9)
    paths = sorted(dicom_files.save(tmp_path / "series", series).iterdir())
    body, headers = encode([(path.name, path.read_bytes()) for path in paths])
    address = f"/segment?domain={ONE}"
    status, _, answer = server.ask("POST", address, body[: -len("-\r\n")], headers)
    assert status == 422
    assert json.loads(answer)["error"] == (
        "form: expected a boundary at its end. Received: a part of it"
    )
    status, _, answer = server.ask("POST", address, b"no form", headers)
    assert (status, answer) == (400, b"Invalid multipart data.")


@pytest.mark.parametrize(
    "media_type", [None, "application/json", "application/x-www-form-urlencoded"]
)
def test_other_content_is_refused(server, media_type):
    headers = {"Content-Type": media_type} if media_type else {}
    status, _, body = server.ask(
        "POST", f"/segment?domain={ONE}", draw_nifti(), headers
    )
    assert status == 422
    received = media_type or "none"
    assert json.loads(body)["error"] == (
        f"`Content-Type`: expected multipart/form-data. Received: {received}"
    )


def test_settings_that_are_given_twice_are_refused(server):
    body, headers = encode([("a.nii", draw_nifti())])
    address = f"/segment?domain={TWO}&domain={ONE}"
    status, _, answer = server.ask("POST", address, body, headers)
    assert status == 422
    assert "query: expected each name once" in json.loads(answer)["error"]


def test_requests_that_are_too_large(model):
    body, headers = encode([("a.nii", draw_nifti())])
    with Server(model, max_upload_mb=0.001) as server:
        address = f"/segment?domain={ONE}"
        status, _, answer = server.ask("POST", address, body, headers)
        assert status == 413
        assert "at most 0.001 MB" in json.loads(answer)["error"]
        # In chunks, without a length that is stated first.
        status, _, _ = server.ask("POST", address, iter([body]), headers)
        assert status == 413


def test_a_limit_to_the_memory(model):
    with Server(model, max_memory_gb=1e-6) as server:
        status, _, body = server.segment([("a.nii", draw_nifti())], domain=ONE)
    assert status == 422
    assert "GB" in json.loads(body)["error"]


def test_what_the_server_lacks_is_not_a_fault_of_the_request(model):
    def stop(*arguments, **options):
        raise StoppedError("highdicom is required but not installed")

    lacking = mock.Mock(side_effect=stop, plan=model.plan)
    with Server(lacking) as server:
        status, _, body = server.segment([("a.nii", draw_nifti())], domain=ONE)
    assert status == 500
    assert "highdicom" in json.loads(body)["error"]


class SlowModel:
    """Segments when it may, and counts."""

    def __init__(self, model):
        self._model = model
        self.plan = model.plan
        self.may = threading.Event()
        self.running = threading.Event()
        self.count = 0

    def __call__(self, *arguments, **options):
        self.count += 1
        self.running.set()
        assert self.may.wait(100)
        return self._model(*arguments, **options)


def test_requests_wait_up_to_a_limit(model):
    slow = SlowModel(model)
    files = [("a.nii", draw_nifti())]
    statuses = []
    with Server(slow, max_queue=2) as server:
        threads = [
            threading.Thread(
                target=lambda: statuses.append(server.segment(files, domain=ONE)[0])
            )
            for _ in range(2)
        ]
        threads[0].start()
        assert slow.running.wait(100)
        threads[1].start()
        # Until the second one has its place, and a folder.
        while len(list(pathlib.Path(tempfile.gettempdir()).iterdir())) < 2:
            time.sleep(0.01)
        status, headers, _ = server.segment(files, domain=ONE)
        assert status == 503
        assert headers["Retry-After"] == "10"
        # One at a time.
        assert slow.count == 1
        slow.may.set()
        for thread in threads:
            thread.join()
    assert statuses == [200, 200]


def start_upload(server):
    """Sends half of a request; returns the connection."""
    body, headers = encode([("a.nii", draw_nifti())])
    connection = server.connect()
    connection.putrequest("POST", f"/segment?domain={ONE}")
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders(body[: len(body) // 2])
    return connection


def segment_in_one_piece(server):
    """Sends a request, no part of which can arrive late; returns the status."""
    body, headers = encode([("a.nii", draw_nifti())])
    connection = server.connect()
    try:
        pieces = []
        connection.send = pieces.append
        connection.request("POST", f"/segment?domain={ONE}", body, headers)
        del connection.send
        connection.send(b"".join(pieces))
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_upload_that_stalls_gives_up_its_place(model, monkeypatch):
    monkeypatch.setattr(limits, "STALL_SECONDS", 0.5)
    with Server(model, max_queue=1) as server:
        stalled = start_upload(server)
        answer = stalled.getresponse()
        assert answer.status == 408
        assert "nothing for 0.5 s" in json.loads(answer.read())["error"]
        stalled.close()
        assert segment_in_one_piece(server) == 200


def test_waiting_for_its_turn_is_no_stalling(model, monkeypatch):
    monkeypatch.setattr(limits, "STALL_SECONDS", 0.5)
    slow = SlowModel(model)
    statuses = []
    with Server(slow) as server:
        thread = threading.Thread(
            target=lambda: statuses.append(segment_in_one_piece(server))
        )
        thread.start()
        assert slow.running.wait(100)
        time.sleep(1)
        slow.may.set()
        thread.join()
    assert statuses == [200]


def test_an_upload_that_ends_early_is_no_error_of_the_server(model, caplog):
    with Server(model, max_queue=1) as server:
        folder = pathlib.Path(tempfile.gettempdir())
        connection = start_upload(server)
        while not list(folder.iterdir()):
            time.sleep(0.01)
        connection.close()
        while list(folder.iterdir()):
            time.sleep(0.01)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_nothing_is_computed_for_who_has_left(model):
    slow = SlowModel(model)
    body, headers = encode([("a.nii", draw_nifti())])
    address = f"/segment?domain={ONE}"
    with Server(slow) as server:
        first, second = server.connect(), server.connect()
        first.request("POST", address, body, headers)
        assert slow.running.wait(100)
        second.request("POST", address, body, headers)
        folder = pathlib.Path(tempfile.gettempdir())
        while len(list(folder.glob("*/image_0.nii"))) < 2:
            time.sleep(0.01)
        second.close()
        slow.may.set()
        assert first.getresponse().read()
        first.close()
    assert slow.count == 1


def test_other_names_of_the_host_are_refused(server):
    for host, expected in (("127.0.0.1", 200), ("example.org", 400)):
        status, _, _ = server.ask("GET", "/domains", headers={"Host": host})
        assert status == expected


@pytest.mark.parametrize("address", ["/", "/page.js", "/page.css", "/niivue.js"])
def test_the_page(server, address):
    status, headers, body = server.ask("GET", address)
    assert status == 200
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    if address == "/niivue.js":
        assert headers["Content-Encoding"] == "gzip"
        assert b"niivue" in gzip.GzipFile(fileobj=io.BytesIO(body)).read(300)
    else:
        # Nothing is loaded from elsewhere.
        assert b"http" not in body.lower()


def test_the_viewer_is_the_one_that_the_licences_name():
    text = (PAGE / "LICENSES.md").read_text(encoding="utf-8")
    content = (PAGE / "niivue.umd.js.gz").read_bytes()
    assert hashlib.sha256(content).hexdigest() in text
    assert b"0.69.0" in gzip.decompress(content)


def test_unknown_addresses(server):
    assert server.ask("GET", "/other")[0] == 404
    assert server.ask("GET", "/segment")[0] == 405
    assert server.ask("GET", "/LICENSES.md")[0] == 404
