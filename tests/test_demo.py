import importlib.util
import io
import re
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import red_model
from demo_server import Server, free_port, wait_for
from PIL import Image

from kmatting import predict
from kmatting.demo import __main__ as demo

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="needs gradio: pip install 'kmatting[demo]'"
)


@pytest.fixture(scope="module")
def model():
    return red_model.folder() / "red.tflite"


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    with Server(model, tmp_path_factory.mktemp("server") / "tmp") as server:
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


PHOTOS = {
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
    return tuple((folder / kind / f"{photo.stem}.png").read_bytes() for kind in ("alpha", "cutout"))


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
            ("--model", str(model), "--port", str(port)): f"port {port} is taken",
            ("--model", str(model), "--host", "192.0.2.1"): "192.0.2.1, port .*: cannot listen",
        }
        for arguments, message in cases.items():
            port_option = [] if "--port" in arguments else ["--port", str(free_port())]
            assert demo.main([*arguments, *port_option]) == 2
            assert_one_error(capsys, message)


def test_without_gradio_the_message_says_what_to_do(model, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert demo.main(["--model", str(model)]) == 2
    assert_one_error(capsys, r"pip install 'kmatting\[demo\]'")


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
    "bomb.png": (png_that_claims(30000, 30000), r"bomb.png: more than 178,956,970 pixels"),
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

    from kmatting.demo.page import Steps, build_page
    from kmatting.inference.matter import Matter

    matter = Matter(red_model.folder() / "red.keras")
    (slider,) = [
        block
        for block in build_page(matter, tmp_path).blocks.values()
        if isinstance(block, gradio.Slider)
    ]
    assert (slider.minimum, slider.value, slider.maximum) == (128, 512, 1024)
    Image.fromarray(shaded(300, 200)).save(tmp_path / "photo.png")
    photo, visitor = {"path": str(tmp_path / "photo.png")}, SimpleNamespace(session_hash=None)
    alpha, _ = Steps(matter, tmp_path).matte(visitor, photo, False, 128)
    by_command = tmp_path / "out"
    expected = by_predict(
        red_model.folder() / "red.keras", tmp_path / "photo.png", by_command, "--size", "128"
    )
    assert Path(alpha).read_bytes() == expected[0]
    with pytest.raises(gradio.Error, match="from 128 to 1024, received 100000"):
        Steps(matter, tmp_path).matte(visitor, photo, False, 100_000)


@needs_gradio
def test_a_file_of_two_visitors_stays_until_both_have_left(tmp_path):
    from kmatting.demo.page import Visits

    one, other = SimpleNamespace(session_hash="1"), SimpleNamespace(session_hash="2")
    shared, own, example = (tmp_path / name for name in ("shared", "own", "example"))
    for path in (shared, own, example):
        path.touch()
    visits = Visits()
    visits.examples = {example}
    for visitor in (one, other):
        visits.begin(visitor)
        visits.keep(visitor, "photo", {shared, example})
    visits.keep(one, "result", {own})
    visits.keep(one, "result", set())
    assert not own.exists()
    visits.end(one)
    assert shared.exists()
    visits.end(other)
    assert not shared.exists()
    assert example.exists()
    own.touch()
    visits.keep(other, "result", {own})  # came too late
    assert not own.exists()


@needs_gradio
def test_too_large_uploads_are_refused(server):
    before = server.files()
    status, message = server.upload("film.png", bytes(51 << 20))
    assert status == 413
    assert "maximum allowed size" in message
    assert server.files() == before


@needs_gradio
def test_nothing_but_uploads_is_read_or_served(server, model):
    for path in (str(model), "/etc/passwd", None):
        event, _ = server.call(path)
        assert event == "error"
    assert server.request("GET", f"/gradio_api/file={model}")[0] == 403
    assert server.request("GET", "/gradio_api/file=/etc/passwd")[0] == 403


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
        assert {"photo.jpg", "photo-alpha.png", "photo-cutout.png"} <= server.files()
    assert server.code == 0
    assert list((tmp_path / "tmp").glob("kmatting-demo-*")) == []
    assert set(server.report["asked"]) <= {"127.0.0.1", "localhost"}
    assert not server.report["tensorflow"]


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
    assert browser.save("alpha") == ("photo-alpha.png", expected[0])
    assert browser.save("cutout") == ("photo-cutout.png", expected[1])
    name, composite = browser.save("composite")
    assert name == "photo-composite.png"
    by_command = (tmp_path / "out" / "composite" / "photo.png").read_bytes()
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
        expected = (tmp_path / "out" / "composite" / "photo.png").read_bytes()
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
    assert browser.save("alpha")[0] == "again-alpha.png"


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
        return button and button.is_enabled() and browser.save("alpha")[0] == "photo2-alpha.png"

    wait_for(saves_the_last)


@needs_gradio
@needs_browser
def test_photos_can_be_pasted(server, browser, model, tmp_path):
    Image.fromarray(shaded(60, 90)).save(tmp_path / "image.png")
    expected, _ = by_predict(model, tmp_path / "image.png", tmp_path / "out")
    browser.open(server.url)
    browser.paste(tmp_path / "image.png")
    assert browser.save("alpha") == ("image-alpha.png", expected)


@needs_gradio
@needs_browser
def test_visitors_keep_apart_and_leave_nothing_behind(server, browser, tmp_path):
    photos = [tmp_path / "one.png", tmp_path / "other.png"]
    tabs = []
    for seed, path in enumerate(photos):
        Image.fromarray(shaded(60, 90, seed)).save(path)
        tabs.append(browser.open(server.url))
        browser.give(path)
        assert browser.save("alpha")[0] == f"{path.stem}-alpha.png"
    browser.driver.switch_to.window(tabs[0])
    assert browser.save("alpha")[0] == "one-alpha.png"
    assert {"one.png", "one-cutout.png", "other.png", "other-cutout.png"} <= server.files()
    browser.driver.close()
    wait_for(lambda: not any(name.startswith("one") for name in server.files()))
    browser.driver.switch_to.window(tabs[1])
    assert {"other.png", "other-cutout.png"} <= server.files()
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
