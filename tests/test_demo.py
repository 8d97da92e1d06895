import importlib.util
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import red_model
from demo_server import Server, file, free_port, wait_for
from PIL import Image

from kmatting import predict
from kmatting.demo import __main__ as demo
from kmatting.demo.files import MAX_AGE, VisitorFiles

VISITOR = SimpleNamespace(session_hash=None)

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="needs gradio: pip install 'kmatting[demo]'"
)


@pytest.fixture(scope="module")
def model():
    return red_model.folder() / "red.tflite"


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    with Server(model, tmp_path_factory.mktemp("server") / "tmp", "--queue", "8") as server:
        yield server


def shaded(height, width, seed=0):
    """A photo with soft and sharp edges."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    photo = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    photo[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 20)
    return photo


def turned_jpeg(path):
    image = Image.fromarray(shaded(90, 140))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=95)


def cmyk_jpeg(path):
    Image.fromarray(shaded(90, 140)).convert("CMYK").save(path)


def deep_png(path):
    grey = shaded(60, 70)[..., 0].astype(np.uint16) * 257
    Image.fromarray(grey).save(path)


def transparent_png(path):
    photo = shaded(100, 80)
    Image.fromarray(np.dstack([photo, photo[..., 1]])).save(path)


def odd_tiff(path):
    Image.fromarray(shaded(33, 77)).convert("LAB").save(path)


def turned_heic(path):
    pytest.importorskip("pillow_heif")
    pytest.importorskip("av")
    from heic_files import picture, rotated, write

    write(path, [picture(shaded(80, 120), rotated(1))])


PHOTOS = {
    "IMG_0001.HEIC": turned_heic,
    "small.avif": lambda path: Image.fromarray(shaded(60, 90)).save(path),
    "turned.jpg": turned_jpeg,
    "cmyk.jpg": cmyk_jpeg,
    "deep.png": deep_png,
    "transparent.png": transparent_png,
    "lab.tif": odd_tiff,
    "Grüße 100%.webp": lambda path: Image.fromarray(shaded(50, 40)).save(path),
}


def by_predict(model, photo, folder, *options):
    """The files of alpha and cutout that the command writes."""
    arguments = [str(photo), "--model", str(model), "--output", str(folder), *options]
    assert predict.main([*arguments, "--alpha", "--cutout"]) == 0
    return tuple((folder / f"{photo.stem}.{kind}.png").read_bytes() for kind in ("alpha", "cutout"))


def png_that_claims(width, height):
    """A PNG of a few bytes whose header promises many pixels."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_help_is_quick():
    program = (
        "import sys; from kmatting.demo.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'gradio', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "127.0.0.1" in run.stdout


@needs_gradio
def test_what_cannot_be_served_is_said_in_one_line(model, capsys, tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {
            ("--model", str(tmp_path / "none.tflite")): "none.tflite: no such file",
            ("--model", str(tmp_path / "broken.tflite")): "broken.tflite: cannot be loaded",
            ("--model", str(model), "--port", str(port)): f"port {port}: Address already in use",
            ("--model", str(model), "--host", "192.0.2.1"): "cannot listen at 192.0.2.1, port",
        }
        for arguments, message in cases.items():
            port_option = [] if "--port" in arguments else ["--port", str(free_port())]
            assert demo.main([*arguments, *port_option]) == 2
            assert_one_error(capsys, message)


def test_without_gradio_the_message_says_what_to_do(model, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert demo.main(["--model", str(model)]) == 2
    assert_one_error(capsys, r"pip install .*\[demo\]")


def assert_one_error(capsys, message):
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert re.search(message, output.err), output.err


@needs_gradio
@pytest.mark.parametrize("name", PHOTOS)
def test_the_call_gives_what_predict_writes(server, model, tmp_path, name):
    PHOTOS[name](tmp_path / name)
    expected = by_predict(model, tmp_path / name, tmp_path / "out")
    assert server.matte(tmp_path / name) == expected


@needs_gradio
def test_edges_keep_the_photos_colours_if_wanted(server, model, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(shaded(60, 90)).save(photo)
    plain = by_predict(model, photo, tmp_path / "out", "--foreground", "none")
    assert server.matte(photo, edges=False) == plain
    assert server.matte(photo, edges=True)[1] != plain[1]


BAD_PHOTOS = {
    "text.jpg": (b"no photo at all", "text.jpg: not an image that can be read"),
    "empty.png": (b"", "empty.png: empty file"),
    "bomb.png": (png_that_claims(30000, 30000), "bomb.png: .*more than 178,956,970 pixels"),
    "large.png": (png_that_claims(9000, 6000), "large.png: 54 megapixels; .* up to 50"),
    "torn.png": (png_that_claims(300, 200), "torn.png: damaged or truncated image"),
}


@needs_gradio
@pytest.mark.parametrize("name", BAD_PHOTOS)
def test_what_is_no_photo_is_said(server, name):
    content, message = BAD_PHOTOS[name]
    status, path = server.upload(name, content)
    assert status == 200, path
    event, data = server.call(path)
    assert event == "error"
    assert re.match(message, data["error"]), data
    assert "/" not in data["error"]  # no path of the server


@needs_gradio
def test_models_of_any_size_get_a_choice_within_limits(tmp_path):
    import gradio

    from kmatting.demo.page import build_page
    from kmatting.demo.steps import Steps
    from kmatting.inference.matter import Matter

    matter = Matter(red_model.folder() / "red.keras")
    (slider,) = [
        block
        for block in build_page(matter, tmp_path, 20).blocks.values()
        if isinstance(block, gradio.Slider)
    ]
    assert (slider.minimum, slider.value, slider.maximum) == (128, 512, 1024)
    Image.fromarray(shaded(300, 200)).save(tmp_path / "photo.png")
    photo = file(str(tmp_path / "photo.png"))
    alpha, _ = Steps(matter, tmp_path).matte(VISITOR, photo, False, 128)
    by_command = tmp_path / "out"
    expected = by_predict(
        red_model.folder() / "red.keras", tmp_path / "photo.png", by_command, "--size", "128"
    )
    assert Path(alpha).read_bytes() == expected[0]
    for size in (100_000, 127, float("nan"), "300", [300], True):
        with pytest.raises(
            gradio.Error, match=f"from 128 to 1024, received {re.escape(str(size))}"
        ):
            Steps(matter, tmp_path).matte(VISITOR, photo, False, size)


def result_of(steps, folder):
    """A cutout and an alpha that `steps` made of a photo."""
    Image.fromarray(shaded(60, 90)).save(folder / "photo.png")
    made = steps.matte(VISITOR, file(str(folder / "photo.png")), False)
    return [file(path) for path in made]


def jpeg_of(width, height):
    content = io.BytesIO()
    Image.new("L", (width, height)).save(content, "JPEG")
    return content.getvalue()


UNREADABLE = {
    "large.png": (png_that_claims(9000, 6000), "'large.png: 54 megapixels; .* up to 50"),
    "black.jpg": (jpeg_of(9000, 6000), "'black.jpg: 54 megapixels; .* up to 50"),
    # Pillow would hand this one to Ghostscript.
    "eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "'eps.png: not an image"),
    "torn.png": (png_that_claims(300, 200), "'torn.png: damaged or truncated image"),
}


@needs_gradio
@pytest.mark.parametrize("name", UNREADABLE)
def test_every_step_refuses_what_the_reader_refuses(model, tmp_path, name):
    import gradio

    from kmatting.demo.steps import Steps
    from kmatting.inference.matter import Matter

    steps = Steps(Matter(model), tmp_path)
    alpha, cutout = result_of(steps, tmp_path)
    content, message = UNREADABLE[name]
    (Path(cutout["path"]).parent / name).write_bytes(content)
    bad = file(str(Path(cutout["path"]).parent / name))
    for step in (
        lambda: steps.matte(VISITOR, bad, False),
        lambda: steps.show(bad, cutout),
        lambda: steps.show(alpha, bad),
        lambda: steps.compose(VISITOR, bad, "#204060", None),
        lambda: steps.compose(VISITOR, cutout, "#204060", bad),
    ):
        with pytest.raises(gradio.Error, match=message) as caught:
            step()
        assert "/" not in str(caught.value)  # no path of the server


@needs_gradio
@pytest.mark.parametrize("colour", ["rgba(1, 2", "rgba(1, 2)", "#xyzxyz", "red;", "", None, 5, [1]])
def test_what_is_no_colour_is_said(model, tmp_path, colour):
    import gradio

    from kmatting.demo.steps import Steps

    with pytest.raises(gradio.Error, match="Expected a colour such as #2f855a, received"):
        Steps(None, tmp_path).compose(VISITOR, None, colour, None)


@needs_gradio
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "Not enough memory for a photo of this size"),
        (OSError(28, "No space left on device"), "cannot write the result: No space left"),
        (ZeroDivisionError("in /srv/model"), "^This failed on the server. Its log says why.$"),
    ],
)
def test_what_goes_wrong_on_the_server_is_said(tmp_path, error, message):
    import gradio

    from kmatting.demo.steps import Steps

    def matter(photo, size):
        raise error

    Image.fromarray(shaded(60, 90)).save(tmp_path / "photo.png")
    with pytest.raises(gradio.Error) as caught:
        Steps(matter, tmp_path).matte(VISITOR, file(str(tmp_path / "photo.png")), False)
    assert re.search(message, caught.value.message)
    assert caught.value.print_exception == isinstance(error, ZeroDivisionError)


@needs_gradio
def test_a_photo_without_a_subject_is_said(model, tmp_path, monkeypatch):
    import gradio

    from kmatting.demo.steps import Steps
    from kmatting.inference.matter import Matter

    said = []
    monkeypatch.setattr(gradio, "Warning", said.append)
    steps = Steps(Matter(model), tmp_path)
    for name, red in {"none.png": 20, "some.png": 250}.items():
        Image.new("RGB", (60, 40), (red, 20, 20)).save(tmp_path / name)  # its red is its alpha
        steps.matte(VISITOR, file(str(tmp_path / name)), False)
    assert said == ["none.png: no subject found."]


@needs_gradio
def test_an_animation_of_which_one_frame_is_cut_out_is_said(model, tmp_path, monkeypatch):
    import gradio

    from kmatting.demo.steps import Steps
    from kmatting.inference.matter import Matter

    said = []
    monkeypatch.setattr(gradio, "Warning", said.append)
    frames = [Image.new("RGB", (60, 40), (red, 0, 0)) for red in (250, 240)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    Steps(Matter(model), tmp_path).matte(VISITOR, file(str(tmp_path / "a.gif")), False)
    assert said == [
        "a.gif: holds several frames, only the first is cut out; kmatting video cuts out all of "
        "them."
    ]


def test_a_file_of_two_visitors_stays_until_both_have_left(tmp_path):
    shared, own, example = (tmp_path / name for name in ("shared", "own", "example"))
    for path in (shared, own, example):
        path.touch()
    files = VisitorFiles(tmp_path)
    files.examples = {example}
    for session in ("1", "2"):
        files.open_page(session)
        files.keep(session, "photo", {shared, example})
    files.keep("1", "result", {own})
    files.keep("1", "result", set())
    assert not own.exists()
    files.close_page("1")
    assert shared.exists()
    files.close_page("2")
    assert not shared.exists()
    assert example.exists()
    own.touch()
    files.keep("2", "result", {own})  # came too late
    assert not own.exists()


def test_old_files_that_no_page_needs_are_deleted(tmp_path):
    names = ("call/photo.jpg", "call/new.jpg", "left/photo.jpg", "page/photo.jpg", "result/a/b.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = VisitorFiles(tmp_path)
    files.open_page("1")
    files.keep("1", "photo", {tmp_path / "page" / "photo.jpg"})
    files.keep("1", "result", {tmp_path / "result"})
    for path in [tmp_path / "example.png", *tmp_path.rglob("*")]:
        path.touch()
        if path.name != "new.jpg":
            os.utime(path, (time.time() - MAX_AGE - 60,) * 2)
    files.examples = {tmp_path / "example.png"}
    with files.deleting_old(0.05):
        wait_for(lambda: not (tmp_path / "call" / "photo.jpg").exists())
        wait_for(lambda: not (tmp_path / "left" / "photo.jpg").exists())
    kept = {"example.png", "call/new.jpg", "page/photo.jpg", "result/a/b.png"}
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == kept


@needs_gradio
def test_what_a_call_leaves_is_deleted_when_it_is_old(server, tmp_path):
    Image.fromarray(shaded(60, 90)).save(tmp_path / "left.jpg")
    server.matte(tmp_path / "left.jpg")
    assert {"left.jpg", "left.alpha.png", "left.cutout.png", "photo.jpg"} <= server.files()
    VisitorFiles(server.folder()).delete_old(max_age=-1)
    assert server.files() == set()


@needs_gradio
def test_too_large_uploads_are_refused(server):
    before = server.files()
    status, message = server.upload("film.png", bytes(51 << 20))
    assert status == 413
    assert "maximum allowed size" in message
    assert server.files() == before


@needs_gradio
def test_nothing_but_uploads_is_read_or_served(server, model, tmp_path):
    secret = tmp_path / "secret.png"
    Image.fromarray(shaded(60, 90)).save(secret)
    before = server.files()
    for path in (str(secret), f"{server.folder()}/../../{secret}", "http://127.0.0.1/a.png", None):
        for photo in (file(path), {"path": path}, {**file(None), "x": [file(path)]}):
            event, data = server.call_with(photo=photo)
            assert event == "error"
            assert "expected a file that was uploaded here, received" in data["error"]
    assert server.files() == before
    assert server.request("GET", f"/gradio_api/file={model}")[0] == 403
    assert server.request("GET", "/gradio_api/file=/etc/passwd")[0] == 403


WRONG_ARGUMENTS = [
    {"photo": "abc"},
    {"photo": 5},
    {"photo": [1]},
    {"photo": {}},
    {"photo": file(5)},
    {"photo": file("a\0b")},
    {"photo": None},
    {"photo": None, "edges": "maybe"},
    {"photo": None, "edges": None},
    {"photo": None, "edges": [1]},
]


@needs_gradio
def test_wrong_arguments_are_answered_by_a_message(server):
    for arguments in WRONG_ARGUMENTS:
        event, data = server.call_with(**arguments)
        assert event == "error"
        message = "[Ee]xpected|validation error|null (byte|character)"
        assert re.search(message, data["error"]), arguments
    for arguments in ({}, {"photo": None, "wrong": 1}):
        status, answer = server.begin_call(**arguments)
        assert status == 400
        assert re.search("photo|wrong", json.loads(answer)["error"])
    assert "Traceback" not in server.log()


@needs_gradio
def test_a_full_queue_is_said(server, tmp_path):
    """Eight may wait; one is at work."""
    _, path = server.upload("photo.jpg", jpeg_of(3000, 2000))
    answers = [server.begin_call(photo=file(path), edges=False)[0] for _ in range(16)]
    assert 8 <= answers.count(200) <= 12
    assert answers.count(200) + answers.count(503) == 16
    wait_for(lambda: server.begin_call(photo=None)[0] == 200)


@needs_gradio
def test_other_hosts_and_sites_are_refused(server):
    own = f"127.0.0.1:{server.port}"
    for host in (own, "localhost", f"LOCALHOST:{server.port}", "192.168.7.7:80", "[::1]:7860"):
        assert server.headers(Host=host)[0] == 200, host
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example", "[", ""):
        status, headers = server.headers(Host=host, Origin=f"http://{host}")
        assert status == 400, host
        assert "Access-Control-Allow-Origin" not in headers
    assert server.headers(Host=own, Origin=f"http://{own}")[0] == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "["):
        status, headers = server.headers(Host=own, Origin=origin)
        assert status == 403, origin
        assert "Access-Control-Allow-Origin" not in headers


def test_names_that_are_allowed():
    pytest.importorskip("gradio")
    from starlette.datastructures import Headers

    from kmatting.demo.server import Guard

    def status(**headers):
        answer = Guard(None, ["machine"], ["Demo.Example"]).refuse(Headers(headers))
        return None if answer is None else answer.status_code

    assert status(host="demo.example:8000") is None
    assert status(host="127.0.0.1:7860", origin="https://demo.example") is None  # of a proxy
    assert status(host="machine:7860") is None
    assert status(host="machine:7860", origin="http://machine:3000") == 403
    assert status(host="demo.example", origin="https://other.example") == 403
    assert status(host="other.example") == 400


@needs_gradio
def test_browsers_are_told_what_the_page_may_do(server):
    status, headers = server.headers()
    assert status == 200
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "default-src 'self'" in headers["Content-Security-Policy"]


@needs_gradio
def test_no_call_passes_the_queue_by(server):
    body = b'{"data": [null, true]}'
    for path in ("run", "api"):
        assert server.request("POST", f"/gradio_api/{path}/matte", body)[0] == 404


@needs_gradio
def test_a_server_leaves_nothing_and_asks_nobody(model, tmp_path):
    Image.fromarray(shaded(60, 90)).save(tmp_path / "photo.jpg")
    with Server(model, tmp_path / "tmp") as server:
        server.matte(tmp_path / "photo.jpg")
        assert {"photo.jpg", "photo.alpha.png", "photo.cutout.png"} <= server.files()
        server.open_page()
    assert server.code == 0
    assert list((tmp_path / "tmp").glob("kmatting-demo-*")) == []
    assert set(server.report["asked"]) <= {"127.0.0.1", "localhost"}
    assert not server.report["tensorflow"]


# Sends SIGTERM in the middle of a heartbeat's first step, where it looks whether the server stops.
AT_THE_WORST_MOMENT = """
import asyncio, os

loop_of = asyncio.Event._get_loop

def interrupted(event):
    if sys._getframe(2).f_code.co_name == "_run":  # the waiting is a task of its own
        os.kill(os.getpid(), signal.SIGTERM)
    return loop_of(event)

asyncio.Event._get_loop = interrupted
"""


@needs_gradio
def test_a_signal_at_the_worst_moment_ends_a_server(model, tmp_path):
    with Server(model, tmp_path / "tmp", change=AT_THE_WORST_MOMENT) as server:
        server.open_page().read()  # until the server ends it
    assert server.code == 0
    assert server.log() == ""
    assert server.report is not None  # it was not ended by force
    assert list((tmp_path / "tmp").glob("kmatting-demo-*")) == []


BUSY = """
import time
from kmatting.demo import server, steps

server.GRACE = 0.5
steps._check_options = lambda *options: time.sleep(60)
"""


@needs_gradio
def test_a_server_ends_while_a_photo_is_in_work(model, tmp_path):
    with Server(model, tmp_path / "tmp", change=BUSY) as server:
        _, path = server.upload("photo.png", png_that_claims(8, 8))
        status, _ = server.begin_call(photo=file(path))
        assert status == 200
        server.open_page()
        time.sleep(0.5)  # until it is in work
    assert server.code == 0
    assert server.log() == ""
    assert list((tmp_path / "tmp").glob("kmatting-demo-*")) == []


needs_browser = pytest.mark.skipif(
    not all([shutil.which("chromium"), shutil.which("chromedriver")])
    or importlib.util.find_spec("selenium") is None,
    reason="needs selenium and a browser: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    from demo_browser import Browser

    browser = Browser(tmp_path_factory.mktemp("downloads"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium):
    yield chromium
    chromium.close_pages()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    turned_jpeg(path)
    return path


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


@needs_gradio
@needs_browser
def test_the_page_saves_what_predict_writes(server, browser, model, photo, tmp_path):
    browser.open(server.url)
    browser.asked()
    browser.give(photo)
    expected = by_predict(model, photo, tmp_path / "out", "--composite", "#2f855a")
    assert browser.save("alpha") == ("photo.alpha.png", expected[0])
    assert browser.save("cutout") == ("photo.cutout.png", expected[1])
    name, composite = browser.save("composite")
    assert name == "photo.composite.png"
    by_command = (tmp_path / "out" / "photo.composite.png").read_bytes()
    # The page starts from the saved cutout, whose alpha has 8 bits.
    assert np.abs(pixels(composite) - pixels(by_command)).max() <= 2


@needs_gradio
@needs_browser
def test_the_page_asks_no_other_host(server, browser, photo):
    browser.asked()
    browser.open(server.url)
    browser.give(photo)
    for tab in ("Matte", "Composite", "Cutout"):
        browser.show(tab)
    assert browser.asked() == {"127.0.0.1"}
    assert browser.violations() == []
    assert browser.blocked("http://example.com/") == "http://example.com/"
    assert browser.violations() != []
    browser.driver.get("about:blank")
    browser.driver.execute_script("fetch('http://example.com/').catch(() => {})")
    wait_for(lambda: browser.asked() == {"example.com"})  # it would have been seen


@needs_gradio
@needs_browser
def test_backgrounds(server, browser, model, photo, tmp_path):
    browser.open(server.url)
    browser.show("Composite")
    browser.give(photo)
    browser.choose_colour("#204060")
    scene = tmp_path / "scene.png"
    Image.fromarray(shaded(50, 50, seed=1)).save(scene)
    for background in ("#204060", str(scene)):
        if background == str(scene):
            browser.give(scene, "#background")
        by_predict(model, photo, tmp_path / "out", "--composite", background, "--overwrite")
        expected = (tmp_path / "out" / "photo.composite.png").read_bytes()
        assert np.abs(pixels(browser.save("composite")[1]) - pixels(expected)).max() <= 2


@needs_gradio
@needs_browser
def test_a_bad_photo_is_said_and_the_next_one_works(server, browser, model, photo, tmp_path):
    browser.open(server.url)
    browser.give(photo)
    (tmp_path / "bad.jpg").write_bytes(b"no photo at all")
    browser.choose(tmp_path / "bad.jpg")
    wait_for(lambda: "bad.jpg: not an image that can be read" in browser.messages())
    assert browser.results() == set()  # not those of the former photo
    assert not browser.button("Save alpha").is_enabled()
    photo.rename(tmp_path / "again.jpg")
    browser.give(tmp_path / "again.jpg")
    assert browser.save("alpha")[0] == "again.alpha.png"


@needs_gradio
@needs_browser
def test_a_photo_can_be_removed(server, browser, photo):
    browser.open(server.url)
    browser.give(photo)
    browser.remove_photo()
    assert browser.results() == set()
    assert not browser.button("Save alpha").is_enabled()
    assert browser.messages() == ""
    browser.give(photo)


@needs_gradio
@needs_browser
def test_the_photo_that_is_chosen_last_counts(server, browser, tmp_path):
    for index in range(3):
        Image.fromarray(shaded(400, 600, index)).save(tmp_path / f"photo{index}.png")
    (tmp_path / "bad.jpg").write_bytes(b"no photo at all")
    browser.open(server.url)
    for name in ("photo0.png", "photo1.png", "bad.jpg", "photo2.png"):
        browser.choose(tmp_path / name)

    def saves_the_last():
        button = browser.button("Save alpha")
        return button and button.is_enabled() and browser.save("alpha")[0] == "photo2.alpha.png"

    wait_for(saves_the_last)


@needs_gradio
@needs_browser
def test_photos_can_be_pasted(server, browser, model, tmp_path):
    Image.fromarray(shaded(60, 90)).save(tmp_path / "image.png")
    expected, _ = by_predict(model, tmp_path / "image.png", tmp_path / "out")
    browser.open(server.url)
    browser.paste(tmp_path / "image.png")
    assert browser.save("alpha") == ("image.alpha.png", expected)


@needs_gradio
@needs_browser
def test_visitors_keep_apart_and_leave_nothing_behind(server, browser, tmp_path):
    photos = [tmp_path / "one.png", tmp_path / "other.png"]
    tabs = []
    for seed, path in enumerate(photos):
        Image.fromarray(shaded(60, 90, seed)).save(path)
        tabs.append(browser.open(server.url))
        browser.give(path)
        assert browser.save("alpha")[0] == f"{path.stem}.alpha.png"
    browser.driver.switch_to.window(tabs[0])
    assert browser.save("alpha")[0] == "one.alpha.png"
    assert {"one.png", "one.cutout.png", "other.png", "other.cutout.png"} <= server.files()
    browser.driver.close()
    wait_for(lambda: not any(name.startswith("one") for name in server.files()))
    browser.driver.switch_to.window(tabs[1])
    assert {"other.png", "other.cutout.png"} <= server.files()
    browser.driver.get("about:blank")
    wait_for(lambda: not any(name.startswith("other") for name in server.files()))


@needs_gradio
@needs_browser
def test_the_page_fits_a_phone(server, browser, photo):
    browser.open(server.url)
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.give(photo)
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 360
