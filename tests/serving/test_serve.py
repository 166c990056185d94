"""The command that serves a model."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from unittest import mock

import pydantic
import pytest
import toy
from command_session import ROOT

pytest.importorskip("onnx", reason="needs the extra `export`")
pytest.importorskip("openvino", reason="needs the extra `export`")
pytest.importorskip("uvicorn", reason="needs the extra `serve`")
# `packed` imports onnx itself.
import packed  # noqa: E402

from u2net_tf import serve  # noqa: E402
from u2net_tf.config.base import to_input_error  # noqa: E402
from u2net_tf.config.serving import ServeConfig  # noqa: E402
from u2net_tf.errors import InputError, StoppedError  # noqa: E402
from u2net_tf.serving import server  # noqa: E402


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "organs.u2net"
    return packed.write(path, packed.make_members())


COMMAND = ("-m", "u2net_tf.serve")
WITHOUT_TENSORFLOW = (
    "-c",
    "import sys; sys.path.append('tests'); import without_tensorflow; "
    "from u2net_tf import serve; serve.run()",
)


def start(*arguments, program=COMMAND):
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        # Background jobs of a shell ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    ("number", "program"),
    [
        (signal.SIGTERM, COMMAND),
        (signal.SIGINT, COMMAND),
        (signal.SIGINT, WITHOUT_TENSORFLOW),
    ],
    ids=["SIGTERM", "SIGINT", "without TensorFlow"],
)
def test_it_serves_until_a_signal(model_file, number, program):
    process = start(f"--model={model_file}", "--port=0", program=program)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(
            rf"{toy.ONE.name}, {toy.TWO.name} at (http://127\.0\.0\.1:\d+) "
            r"\(Ctrl-C stops the server\)\n",
            line,
        )
        assert found, line
        with urllib.request.urlopen(f"{found[1]}/domains", timeout=100) as answer:
            assert len(json.load(answer)) == 2
        process.send_signal(number)
        printed, errors = process.communicate(timeout=100)
    finally:
        process.kill()
    assert (process.returncode, printed) == (0, "stopped\n"), errors
    assert "Traceback" not in errors


def test_all_models_of_an_ensemble_are_loaded(model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "serve", lambda *arguments: None)
    config = ServeConfig(model=(str(model_file), str(tmp_path / "none")), port=0)
    with pytest.raises(InputError, match="/none: expected a folder of a model"):
        serve.main(config)


def test_a_port_in_use_is_named():
    with server.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"`port`: expected a free port.* Received: {port} \("
        ):
            server.listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "two..dots", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_named(host):
    with pytest.raises(InputError, match="`host`: expected an address of this machin"):
        server.listen(host, 0)


def test_addresses():
    with server.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert server.address(listener) == f"http://127.0.0.1:{port}"


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_addresses_of_version_6():
    try:
        listener = server.listen("::1", 0)
    except InputError:
        pytest.skip("this machine has no address ::1")
    with listener:
        port = listener.getsockname()[1]
        assert server.address(listener) == f"http://[::1]:{port}"


@pytest.mark.parametrize(
    ("host", "more"), [("127.0.0.1", set()), ("0.0.0.0", {"ward-pc"})]
)
def test_allowed_hosts(host, more, monkeypatch):
    # Requests are compared in lower case.
    monkeypatch.setattr(socket, "gethostname", lambda: "WARD-PC")
    config = ServeConfig(model=("x",), host=host, allowed_hosts=("Ward-7.example.org",))
    with server.listen(host, 0) as listener:
        names = set(server._allowed_hosts(listener, config))
    expected = {"localhost", "127.0.0.1", "[::1]", host, "ward-7.example.org"}
    assert names == expected | more


def test_an_address_of_version_6_is_allowed_as_browsers_send_it():
    listener = mock.Mock(getsockname=lambda: ("fd00::5", 8000, 0, 0))
    config = ServeConfig(model=("x",), host="fd00::5")
    assert "[fd00::5]" in server._allowed_hosts(listener, config)


@pytest.mark.parametrize("name", ["*.example.org", "a:80", "", "http://a"])
def test_bad_names_of_hosts(name):
    with pytest.raises(pydantic.ValidationError) as caught:
        ServeConfig(model=("x",), allowed_hosts=(name,))
    assert str(to_input_error(caught.value)) == (
        "`allowed_hosts`: expected host names without a port, or *. Received: " + name
    )


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "python_multipart"])
def test_packages_that_are_missing_are_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StoppedError, match=rf"{name} is required .*u2net-tf\[serve\]"):
        server.require_packages()


def test_the_limit_on_open_files_is_raised():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        server.allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_unacceptable_limit_on_open_files_is_ignored(monkeypatch):
    refused = mock.Mock(side_effect=ValueError("current limit exceeds maximum limit"))
    monkeypatch.setattr(resource, "setrlimit", refused)
    server.allow_open_files()
    assert refused.called


@pytest.mark.slow
def test_the_page_in_a_browser(model_file, write_nifti, tmp_path):
    """Chromium shows an image that was dropped, and asks nobody else."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = os.environ.get("U2NET_CHROMIUM", "/usr/bin/chromium")
    if not os.path.exists(browser_path):
        pytest.skip(f"needs Chromium in {browser_path} (U2NET_CHROMIUM)")
    import numpy as np

    scan = tmp_path / "scan.nii.gz"
    image = np.zeros((20, 24, 28), np.float32)
    image[4:-4, 4:-4, 4:-4] = np.random.default_rng(0).uniform(1, 50, (12, 16, 20))
    write_nifti(scan, image)
    process = start(f"--model={model_file}", "--port=0")
    requests, errors = [], []
    try:
        address = re.search("http://[0-9.:]+", process.stdout.readline())[0]
        with playwright.sync_playwright() as starter:
            browser = starter.chromium.launch(
                executable_path=browser_path,
                args=["--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
            )
            page = browser.new_page(viewport={"width": 700, "height": 500})
            page.set_default_timeout(300_000)
            page.on("request", lambda request: requests.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    errors.append(message.text) if message.type == "error" else None
                ),
            )
            page.goto(address, wait_until="domcontentloaded")
            page.locator("#domain option").first.wait_for(state="attached")
            page.set_input_files("#files", str(scan))
            page.locator("#status", has_text="Segmented in").wait_for()
            assert page.inner_text("#classes").startswith("organ")
            assert float(page.inner_text("#classes").split()[-1]) > 0
            assert page.evaluate("viewer.volumes.length") == 2
            # The colour of the class, over the image.
            pixels = page.evaluate(READ_PIXELS)
            assert any(red > 2 * green + 20 for red, green in pixels)
            with page.expect_download() as download:
                page.click("#download")
            assert download.value.suggested_filename == "labels.nii.gz"
            page.select_option("#domain", toy.TWO.name)
            paths = [
                shutil.copy(scan, tmp_path / name)
                for name in ("adc.nii.gz", "b.nii.gz")
            ]
            page.set_input_files("#files", paths)
            choices = page.locator("#assignment select")
            # The file that is named like the second modality is suggested for it.
            assert [one.input_value() for one in choices.all()] == ["1", "0"]
            choices.first.select_option("0")
            page.click("#assignment button")
            page.locator("#status.error", has_text="only one modality").wait_for()
            choices.last.select_option("1")
            page.click("#assignment button")
            words = "T2: adc.nii.gz; ADC: b.nii.gz."
            page.locator("#status", has_text=words).wait_for()
            assert page.locator("#assignment").is_hidden()
            page.select_option("#domain", toy.ONE.name)
            page.set_input_files("#files", __file__)
            page.locator("#status.error").wait_for()
            assert "expected DICOM" in page.inner_text("#status")
            # Until now there were no errors, but this answer is one.
            assert [e for e in errors if "422" not in e] == []
            browser.close()
    finally:
        process.kill()
        process.communicate()
    assert requests
    assert all(url.startswith((address, "blob:", "data:")) for url in requests)


READ_PIXELS = """() => {
  viewer.drawScene();
  const gl = viewer.gl;
  const bytes = new Uint8Array(4 * gl.drawingBufferWidth * gl.drawingBufferHeight);
  gl.readPixels(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight, gl.RGBA,
    gl.UNSIGNED_BYTE, bytes);
  const pixels = [];
  for (let i = 0; i < bytes.length; i += 4 * 7) pixels.push([bytes[i], bytes[i + 1]]);
  return pixels;
}"""
