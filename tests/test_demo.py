import contextlib
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
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import red_model
from demo_server import Server, file, free_port, wait_for
from PIL import Image

from kmatting import predict
from kmatting.demo import __main__ as demo
from kmatting.demo.files import MAX_AGE, VisitorFiles

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


def png(height=60, width=90, seed=0):
    content = io.BytesIO()
    Image.fromarray(shaded(height, width, seed)).save(content, "PNG")
    return content.getvalue()


@needs_gradio
@pytest.mark.parametrize("name", PHOTOS)
def test_the_route_gives_what_predict_writes(server, model, tmp_path, name):
    PHOTOS[name](tmp_path / name)
    alpha, cutout = by_predict(model, tmp_path / name, tmp_path / "out")
    assert server.predict(tmp_path / name, what="alpha") == (200, alpha)
    assert server.predict(tmp_path / name) == (200, cutout)


# Options of the route, and those of the command that give the same.
EDITS = {
    "erode=3": ["--erode", "3"],
    "erode=-2&foreground=none": ["--erode", "-2", "--foreground", "none"],
    "threshold=0.4": ["--threshold", "0.4"],
    "crop": ["--crop"],
    "crop=10%25&canvas=square": ["--crop", "10%", "--canvas", "square"],
    "canvas=4:5": ["--canvas", "4:5"],
    "canvas=100": ["--canvas", "100"],
    "only_largest=true": ["--only-largest"],
    "shadow": ["--shadow"],
    "shadow=0.3&bits=16": ["--shadow", "0.3", "--bits", "16"],
    "keep_metadata=1": ["--keep-metadata"],
}


@needs_gradio
@pytest.mark.parametrize("query", EDITS)
def test_the_route_edits_as_predict_does(server, model, tmp_path, query):
    photo = Image.new("RGB", (140, 90), (10, 90, 90))  # its red is its alpha
    soft = Image.fromarray(shaded(40, 50)).crop((0, 0, 50, 40))
    photo.paste(soft, (20, 30))
    photo.paste((250, 20, 20), (100, 20, 110, 30))
    exif = photo.getexif()
    exif[0x010F] = "a camera"
    photo.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    plain = by_predict(model, tmp_path / "photo.jpg", tmp_path / "plain")[1]
    expected = by_predict(model, tmp_path / "photo.jpg", tmp_path / "out", *EDITS[query])[1]
    content = (tmp_path / "photo.jpg").read_bytes()
    assert server.request("POST", f"/predict?{query}", content, "image/jpeg") == (200, expected)
    assert expected != plain


def test_every_edit_is_tested_and_is_on_the_page():
    pytest.importorskip("gradio")
    from kmatting.demo.studio import OPTIONS

    named = set(re.findall(r"(\w+)(?:=|&|$)", " ".join(EDITS).replace(" ", "&")))
    assert OPTIONS.keys() <= named
    edits = {name for name, each in OPTIONS.items() if each.metadata["option"].group == "editing"}
    assert edits <= set(Server.names)


@needs_gradio
def test_composites_and_formats_of_the_route(server, model, tmp_path):
    photo, scene = tmp_path / "photo.jpg", tmp_path / "scene.png"
    turned_jpeg(photo)
    scene.write_bytes(png(50, 50, seed=1))
    by_predict(model, photo, tmp_path / "out", "--composite", "navy", "--composite-format", "jpg")
    expected = (tmp_path / "out" / "photo.composite.jpg").read_bytes()
    navy = {"what": "composite", "background": "navy", "format": "jpg"}
    assert server.predict(photo, **navy) == (200, expected)
    by_predict(model, photo, tmp_path / "scene", "--composite", str(scene))
    expected = (tmp_path / "scene" / "photo.composite.png").read_bytes()
    files = [("photo", "a", photo.read_bytes()), ("background", "b", scene.read_bytes())]
    assert server.send_form("/predict?what=composite", files) == (200, expected)


@needs_gradio
def test_the_route_says_what_a_photo_lacks(server):
    empty = io.BytesIO()
    Image.new("RGB", (60, 40), (20, 20, 20)).save(empty, "PNG")  # its red is its alpha
    status, headers = server.headers("POST", "/predict", empty.getvalue())
    assert (status, headers["Kmatting-Remarks"]) == (200, "no subject found")
    status, headers = server.headers("POST", "/predict", png())
    assert (status, headers["Kmatting-Remarks"]) == (200, None)


BAD_PHOTOS = {
    "text": (b"no photo at all", 422, "image: not an image that can be read"),
    "empty": (b"", 400, "received an empty body"),
    "bomb": (png_that_claims(30000, 30000), 422, "image: .*more than 178,956,970 pixels"),
    "large": (png_that_claims(9000, 6000), 413, "image: 54 megapixels; .* up to 50"),
    "torn": (png_that_claims(300, 200), 422, "image: damaged or truncated image"),
    # Pillow would hand this one to Ghostscript.
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "image: not an image"),
    "film": (bytes(51 << 20), 413, "at most 50 MB"),
}


@needs_gradio
@pytest.mark.parametrize("name", BAD_PHOTOS)
def test_what_is_no_photo_is_said(server, name):
    content, status, message = BAD_PHOTOS[name]
    assert_error(server.predict(None, content), status, message)
    if name not in ("empty", "film"):
        composite = [("photo", "a", png()), ("background", "b", content)]
        assert_error(server.send_form("/predict?what=composite", composite), status, message)


def assert_error(answer, status, message):
    assert answer[0] == status, answer
    assert re.search(message, json.loads(answer[1])["error"]), answer


WRONG_QUERIES = {
    "what=mask": "kinds: expected some of .*, received 'mask'",
    "what=composite": "backgrounds",
    "background=white": "backgrounds",
    "format=gif": r"expected \.png or",
    "erode=x": "erode: .*expected a whole number",
    "threshold=2": "threshold: expected a number above 0 and at most 1",
    "threshold": "threshold: expected a value, received ''",
    "only_largest=maybe": "only_largest: expected a value, received 'maybe'",
    "canvas=1:99": "canvas: expected square",
    "canvas=13000": "canvas: expected at most 50 megapixels",
    "crop=5000&canvas=square": "canvas: expected at most 50 megapixels",
    "crop=1000%25&canvas=20:1": "canvas: expected at most 50 megapixels",
    "size=128": "size: the model runs at one size only",
    "mask=1": "mask: no such option",
    "kinds=alpha": "kinds: no such option",
    **{
        f"what=composite&background={colour}": "Expected a colour such as #2f855a, received"
        for colour in (
            "",
            "rgba(1,2",
            "rgba(1,2)",
            "rgba(1,2,300,1)",
            "%23xyzxyz",
            "red;",
            "/etc/x",
        )
    },
}


@needs_gradio
@pytest.mark.parametrize("query", WRONG_QUERIES)
def test_what_is_no_option_is_said(server, query):
    large = png(3000, 3000) if "20:1" in query else png()
    answer = server.request("POST", f"/predict?{query}", large, "image/png")
    assert_error(answer, 422, WRONG_QUERIES[query])


@needs_gradio
def test_a_colour_is_never_a_file_of_the_server(server, tmp_path):
    scene = tmp_path / "scene.png"
    scene.write_bytes(png())
    answer = server.predict(None, png(), what="composite", background=str(scene))
    assert_error(answer, 422, "Expected a colour")


@needs_gradio
def test_other_bodies_are_refused(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert_error(server.request("POST", "/predict", png(), kind), 415, "Expected a photo")
    for files in ([], [("picture", "a", png())], [("photo", "a", png()), ("mask", "b", png())]):
        assert_error(server.send_form("/predict", files), 400, "Expected a photo")
    kind = "multipart/form-data"
    assert_error(server.request("POST", "/predict", b"x", kind), 400, "boundary")
    assert_error(server.request("POST", "/predict", b"x", f"{kind}; boundary=1"), 400, "multipart")
    assert "Traceback" not in server.log()


@needs_gradio
def test_the_route_is_described(server):
    described = json.loads(server.request("GET", "/openapi.json")[1])["paths"]["/predict"]["post"]
    names = {each["name"] for each in described["parameters"]}
    assert {"what", "format", "background", "size", "erode", "shadow"} <= names
    assert "multipart/form-data" in described["requestBody"]["content"]


PLANTED = """
from kmatting.pictures import foreground

def planted(*arguments):
    raise ValueError("planted in /srv")

foreground._estimate_layers = planted
"""


@needs_gradio
def test_a_fault_of_ours_is_no_fault_of_the_visitor(model, tmp_path):
    with Server(model, tmp_path / "tmp", change=PLANTED) as server:
        message = "^Internal error, see the log of the server.$"
        assert_error(server.predict(None, png()), 500, message)
        wait_for(lambda: server.log().count("ValueError: planted in /srv") == 1)
        _, path = server.upload("photo.png", png())
        done, output = server.call(photo=file(path))
        assert not done
        assert re.match(message, output["error"])
        wait_for(lambda: server.log().count("ValueError: planted in /srv") == 2)
        assert server.predict(None, png(), foreground="none")[0] == 200  # and others are served


@needs_gradio
def test_models_of_any_size_get_a_choice_within_limits(tmp_path):
    import gradio

    from kmatting.demo.page import build_page
    from kmatting.demo.studio import Studio
    from kmatting.errors import UsageError
    from kmatting.inference.matter import Matter

    studio = Studio(Matter(red_model.folder() / "red.keras"))
    page = build_page(studio, VisitorFiles(tmp_path), tmp_path, 20)
    sliders = [each for each in page.blocks.values() if isinstance(each, gradio.Slider)]
    (slider,) = (each for each in sliders if each.label == "Size")
    assert (slider.minimum, slider.value, slider.maximum) == (128, 512, 1024)
    photo = tmp_path / "photo.png"
    photo.write_bytes(png(300, 200))
    keras = red_model.folder() / "red.keras"
    expected = by_predict(keras, photo, tmp_path / "out", "--size", "128")
    for size in (128, 128.0, "128"):
        assert studio.make(photo, ("alpha",), {}, size=size).pictures[0].encode() == expected[0]
    for size in (100_000, 127, float("nan"), float("inf"), "x", [300], True):
        with pytest.raises(UsageError, match=f"from 128 to 1024, received {re.escape(str(size))}"):
            studio.make(photo, ("alpha",), {}, size=size)


def values_of(photo):
    """What the page holds of a photo."""
    sent = file(str(photo))
    return {"photo": sent, "background": None, "colour": "#204060", "edges": True}


def step(tmp_path, name, content, make, **values):
    """Has a step of the page work on a file; returns what the visitor is told, or the result."""
    gradio = pytest.importorskip("gradio")
    from kmatting.demo.steps import Steps
    from kmatting.demo.studio import Studio

    (tmp_path / "hash").mkdir(exist_ok=True)
    (tmp_path / "hash" / name).write_bytes(content)
    steps = Steps(Studio(make), VisitorFiles(tmp_path), tmp_path)
    try:
        return steps.make("1", {**values_of(tmp_path / "hash" / name), **values})
    except gradio.Error as error:
        return error.message


@pytest.mark.parametrize("name", sorted(set(BAD_PHOTOS) - {"film"}))
def test_the_page_refuses_what_the_reader_refuses(model, tmp_path, name):
    from kmatting.inference.matter import Matter

    content, _, message = BAD_PHOTOS[name]
    message = "empty file" if name == "empty" else message.removeprefix("image: ")
    bad = file(str(tmp_path / "hash" / f"{name}.png"))
    said = step(tmp_path, f"{name}.png", content, Matter(model))
    assert re.match(f"{name}.png: {message}", said)
    (tmp_path / "hash" / f"{name}.png").write_bytes(content)
    said = step(tmp_path, "photo.png", png(), Matter(model), background=bad)
    assert re.match(f"{name}.png: {message}", said)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "Not enough memory for a photo of this size"),
        (OSError(28, "No space left on device"), "cannot write the result: No space left"),
        (ZeroDivisionError("in /srv/model"), "^Internal error, see the log of the server.$"),
        (OSError("in /srv/model"), "^Internal error, see the log of the server.$"),
    ],
)
def test_what_goes_wrong_on_the_server_is_said(tmp_path, capsys, error, message):
    def matter(photo, size):
        raise error

    assert re.search(message, step(tmp_path, "photo.png", png(), matter))
    assert ("in /srv/model" in capsys.readouterr().err) == ("Internal" in message)


def test_the_page_says_what_a_photo_lacks(model, tmp_path, monkeypatch):
    gradio = pytest.importorskip("gradio")
    from kmatting.inference.matter import Matter

    said = []
    monkeypatch.setattr(gradio, "Warning", said.append)
    for name, red in {"none.png": 20, "some.png": 250}.items():
        Image.new("RGB", (60, 40), (red, 20, 20)).save(tmp_path / name)  # its red is its alpha
        step(tmp_path, name, (tmp_path / name).read_bytes(), Matter(model))
    frames = [Image.new("RGB", (60, 40), (red, 0, 0)) for red in (250, 240)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    step(tmp_path, "a.gif", (tmp_path / "a.gif").read_bytes(), Matter(model))
    assert said == [
        "none.png: no subject found.",
        "a.gif: holds several frames, only the first is cut out; kmatting video cuts out all of "
        "them.",
    ]


def test_a_file_of_two_visitors_stays_until_both_have_left(tmp_path):
    shared, own, example = (tmp_path / name for name in ("shared", "own", "example"))
    for path in (shared, own, example):
        path.touch()
    files = VisitorFiles(tmp_path)
    files.examples = {example}
    with files.open_page("2"):
        with files.open_page("1"):
            for session in ("1", "2"):
                files.keep(session, "photo", {shared, example})
            files.keep("1", "result", {own})
            files.keep("1", "result", set())
            assert not own.exists()
        assert shared.exists()
    assert not shared.exists()
    assert example.exists()
    own.touch()
    files.keep("2", "result", {own})  # came too late
    assert not own.exists()


def test_a_photo_may_come_before_the_heartbeat_and_two_may_overlap(tmp_path):
    photo = tmp_path / "photo"
    photo.touch()
    files = VisitorFiles(tmp_path)
    files.keep("1", "photo", {photo})
    with files.open_page("1"):
        with files.open_page("1"):
            pass
        assert photo.exists()
    assert not photo.exists()


def test_results_can_be_saved_until_the_page_shows_others(model, tmp_path, monkeypatch):
    gradio = pytest.importorskip("gradio")
    from kmatting.demo.steps import KINDS, Steps
    from kmatting.demo.studio import Studio
    from kmatting.inference.matter import Matter

    def to_save(made):
        return {Path(made[f"{kind}_file"]["value"]) for kind in KINDS if f"{kind}_file" in made}

    (tmp_path / "photo.png").write_bytes(png())
    files = VisitorFiles(tmp_path)
    steps = Steps(Studio(Matter(model)), files, tmp_path)
    sent = values_of(tmp_path / "photo.png")
    shown = to_save(steps.make("1", sent)) | to_save(steps.compose("1", sent))
    with pytest.raises(gradio.Error, match="crop"):
        steps.make("1", {**sent, "crop": "nonsense"})
    files.delete_old()
    assert len(shown) == 4
    assert all(path.exists() for path in shown)
    new = to_save(steps.make("1", sent))  # the page does not have these yet
    files.delete_old()
    assert all(path.exists() for path in shown)
    monkeypatch.setattr("kmatting.demo.files.GRACE", -1)
    files.delete_old()
    assert not any(path.exists() for path in shown)
    assert all(path.exists() for path in new)


def test_a_photo_that_is_chosen_again_at_once_is_still_there(model, tmp_path):
    pytest.importorskip("gradio")
    from kmatting.demo.steps import Steps
    from kmatting.demo.studio import Studio
    from kmatting.inference.matter import Matter

    photos = [tmp_path / "one.png", tmp_path / "other.png"]
    for path in photos:
        path.write_bytes(png())
    steps = Steps(Studio(Matter(model)), VisitorFiles(tmp_path), tmp_path)
    for path in (*photos, photos[0]):  # an upload has one path, however often it is sent
        assert steps.make("1", values_of(path))["cutout_file"]["value"].endswith(".png")


def test_old_files_that_no_page_needs_are_deleted(tmp_path):
    names = ("call/photo.jpg", "call/new.jpg", "left/photo.jpg", "page/photo.jpg", "result/a/b.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = VisitorFiles(tmp_path)
    files.keep("2", "photo", {tmp_path / "left" / "photo.jpg"})  # and never opened a page
    files._visits["2"].last_seen -= MAX_AGE + 60
    with files.open_page("1"):
        files.keep("1", "photo", {tmp_path / "page" / "photo.jpg"})
        files.keep("1", "result", {tmp_path / "result"})
        files._visits["1"].last_seen -= MAX_AGE + 60
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


EXAMPLES = {"fur.jpg", "horn.jpg", "star.jpg"}


@needs_gradio
def test_what_a_page_leaves_is_deleted_with_its_heartbeat(server):
    """Whoever it is: a client may call a step and go away, or keep the heartbeat and never ask."""
    stream = server.open_page("visitor")
    _, path = server.upload("left.png", png())
    done, _ = server.call("visitor", photo=file(path))
    assert done
    assert {"left.png", "left.alpha.png", "left.cutout.png", "photo.jpg"} <= server.files()
    stream.close()
    wait_for(lambda: server.files() == EXAMPLES)


@needs_gradio
def test_what_a_call_without_a_page_leaves_is_deleted_when_it_is_old(server):
    _, path = server.upload("left.png", png())
    assert server.call(photo=file(path))[0]
    assert {"left.png", "left.alpha.png", "left.cutout.png", "photo.jpg"} <= server.files()
    files = VisitorFiles(server.folder())
    files.examples = {each for name in EXAMPLES for each in server.folder().rglob(name)}
    files.delete_old(max_age=-1)
    assert server.files() == EXAMPLES


@needs_gradio
def test_too_large_uploads_are_refused_and_leave_nothing(server):
    before = server.files()
    status, message = server.upload("film.png", bytes(51 << 20))
    assert (status, json.loads(message)) == (413, {"error": "Expected a request of at most 50 MB."})
    assert server.files() == before


@needs_gradio
def test_an_upload_that_breaks_off_leaves_nothing(server):
    before = server.files()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n"
            b"Content-Type: multipart/form-data; boundary=1\r\n\r\n--1\r\nContent-Disposition: "
            b'form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(1 << 20)
        )
        wait_for(lambda: server.files() != before)
    wait_for(lambda: server.files() == before)
    assert "Traceback" not in server.log()


@needs_gradio
def test_nothing_but_uploads_is_read_or_served(server, model, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    before = server.files()
    for path in (str(secret), f"{server.folder()}/../../{secret}", "http://127.0.0.1/a.png", None):
        for photo in (file(path), {"path": path}, {**file(None), "x": [file(path)]}):
            for name in ("photo", "background"):
                done, output = server.call(**{name: photo})
                assert not done
                assert "expected a file that was uploaded here, received" in output["error"]
    assert server.files() == before
    assert server.request("GET", f"/gradio_api/file={model}")[0] == 403
    assert server.request("GET", "/gradio_api/file=/etc/passwd")[0] == 403


WRONG_ARGUMENTS = [
    *({"photo": each} for each in ("abc", 5, [1], {}, file(5), file("a\0b"))),
    *({"erode": each, "photo": "own"} for each in ("x", [1], 1.5, float("inf"))),
    *({"colour": each, "photo": "own"} for each in ("rgba(1, 2", "#xyzxyz", 5, [1])),
    {"canvas": {"a": 1}, "photo": "own"},
]


@needs_gradio
def test_wrong_arguments_are_answered_by_a_message(server):
    _, path = server.upload("own.png", png())
    for arguments in WRONG_ARGUMENTS:
        if arguments["photo"] == "own":
            arguments = {**arguments, "photo": file(path)}
        done, output = server.call(**arguments)
        assert not done, arguments
        message = "[Ee]xpected|validation error|null (byte|character)|Not a valid|valid number"
        assert re.search(message, output["error"]), (arguments, output)
    for call in ("call/v2/make", "run/make", "api/make", "call/make"):
        assert server.request("POST", f"/gradio_api/{call}", b'{"data": []}')[0] in (400, 404)
    assert "Traceback" not in server.log()


@needs_gradio
def test_a_full_queue_is_said(server):
    """Eight may wait; one is at work."""
    _, path = server.upload("photo.jpg", jpeg_of(3000, 2000))
    answers = [server.begin_call(f"{i}", photo=file(path), edges=False)[0] for i in range(16)]
    assert 8 <= answers.count(200) <= 12
    assert answers.count(200) + answers.count(503) == 16
    wait_for(lambda: server.begin_call("last", photo=None)[0] == 200)


def jpeg_of(width, height):
    content = io.BytesIO()
    Image.new("L", (width, height)).save(content, "JPEG")
    return content.getvalue()


# The first photo is at work until the file exists.
AT_WORK = """
import time
import urllib.request
from pathlib import Path
from kmatting.demo import studio

read = studio.read_photo

def slow(*arguments, **options):
    while not Path({path!r}).exists():
        time.sleep(0.05)
    return read(*arguments, **options)

studio.read_photo = slow
"""


def test_a_full_line_before_the_route_is_said(model, tmp_path):
    pytest.importorskip("fastapi")
    change = AT_WORK.format(path=str(tmp_path / "done"))
    with Server(model, tmp_path / "tmp", "--no-page", "--queue", "2", change=change) as server:
        with ThreadPoolExecutor(9) as pool:
            answers = [pool.submit(server.predict, None, png()) for _ in range(9)]
            wait_for(lambda: sum(each.done() for each in answers) == 6)
            (tmp_path / "done").touch()
        statuses = sorted(each.result()[0] for each in answers)
        assert statuses == [200] * 3 + [503] * 6
        assert server.predict(None, png())[0] == 200


def test_the_route_alone_needs_no_gradio(model, tmp_path):
    pytest.importorskip("fastapi")
    change = "import sys; sys.modules['gradio'] = None"
    with Server(model, tmp_path / "tmp", "--no-page", change=change) as server:
        photo = tmp_path / "photo.png"
        photo.write_bytes(png())
        expected = by_predict(model, photo, tmp_path / "out")
        files = [("photo", "photo.png", photo.read_bytes())]
        assert server.send_form("/predict?what=alpha", files) == (200, expected[0])
        assert server.request("GET", "/")[0] == 404
    assert server.code == 0
    assert not server.report["tensorflow"]


# A second is enough for whoever is near.
HURRY = """
from kmatting.demo import guard, server

guard.PATIENCE, guard.LEAST_RATE, server._STALLED = 1, 1 << 20, 1000
"""


def test_slow_connections_are_cut_off(model, tmp_path):
    pytest.importorskip("fastapi")
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    starts = {
        "nothing": b"",
        "half a head": head,
        "half a head after an answer": b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n" + head,
        "half a body": head + b"Content-Length: 1000\r\n\r\n" + bytes(500),
    }
    with Server(model, tmp_path / "tmp", "--no-page", change=HURRY) as server:
        for name, start in starts.items():
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
                client.sendall(start)
                answer = b""
                with contextlib.suppress(ConnectionResetError):
                    while part := client.recv(9999):
                        answer += part
                assert (b" 408 " in answer) == (name == "half a body")
        assert server.log() == ""


def test_who_takes_nothing_is_cut_off(model, tmp_path):
    pytest.importorskip("fastapi")
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("a setting of Linux")
    asking = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Server(model, tmp_path / "tmp", "--no-page", change=HURRY) as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/openapi.json") as response:
            answer = len(response.read())
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(60)
            client.connect(("127.0.0.1", server.port))
            # The answers are several times what the buffers of Linux hold, 4 MiB.
            client.sendall(asking * ((16 << 20) // answer))
            client.settimeout(1)

            def is_cut_off():
                try:
                    client.send(b"more")
                except ConnectionError:
                    return True
                except TimeoutError:  # the server's buffers are full
                    return False

            wait_for(is_cut_off)
        assert server.predict(None, png())[0] == 200


@needs_gradio
def test_a_proxy_may_show_the_page_under_a_path(model, tmp_path):
    with Server(model, tmp_path / "tmp", "--root-path", "/cut/outs/") as server:
        for path in ("/", "/cut/outs/"):  # with the path taken off, and left on
            status, content = server.request("GET", path)
            assert status == 200
            assert f"http://127.0.0.1:{server.port}/cut/outs" in content.decode()
        for path in ("/predict", "/cut/outs/predict"):
            assert server.request("POST", path, png(), "image/png")[0] == 200


def test_paths_that_are_none(capsys):
    for path in ("cut", "/a b", "/a?b", "http://a/b", "//a"):
        with pytest.raises(SystemExit):
            demo.main(["--root-path", path])
        assert "expected a path such as /cutouts" in capsys.readouterr().err


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
        for method, path in (("GET", "/config"), ("POST", "/predict")):
            status, headers = server.headers(method, path, png(), Host=own, Origin=origin)
            assert status == 403, origin
            assert "Access-Control-Allow-Origin" not in headers


def test_names_that_are_allowed(tmp_path):
    pytest.importorskip("uvicorn")
    from starlette.datastructures import Headers

    from kmatting.demo.guard import Guard, RefusedError

    def status(**headers):
        guard = Guard(None, VisitorFiles(tmp_path), ["machine"], ["Demo.Example"])
        try:
            guard.check(Headers(headers))
        except RefusedError as error:
            return error.response.status_code

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
def test_a_server_leaves_nothing_and_asks_nobody(model, tmp_path):
    with Server(model, tmp_path / "tmp") as server:
        _, path = server.upload("photo.png", png())
        assert server.call(photo=file(path))[0]
        assert server.predict(None, png())[0] == 200
        assert {"photo.png", "photo.alpha.png", "photo.cutout.png"} <= server.files()
        server.open_page()
    assert server.code == 0
    assert list((tmp_path / "tmp").glob("kmatting-demo-*")) == []
    assert set(server.report["asked"]) <= {"127.0.0.1", "localhost"}
    assert not server.report["tensorflow"]


# Sends SIGTERM where a stream begins to wait for the end of the server.
AT_THE_WORST_MOMENT = """
import asyncio, os

loop_of = asyncio.Event._get_loop

def interrupted(event):
    if sys._getframe(2).f_code.co_name in ("_run", "_end"):
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


@needs_gradio
def test_a_server_ends_while_a_photo_is_in_work(model, tmp_path):
    change = (
        AT_WORK.format(path="/nowhere") + "\nfrom kmatting.demo import server; server.GRACE = 0.5"
    )
    with Server(model, tmp_path / "tmp", change=change) as server:
        _, path = server.upload("photo.png", png())
        status, _ = server.begin_call("1", photo=file(path))
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
    assert browser.save("matte") == ("photo.alpha.png", expected[0])
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
    assert not browser.button("Save matte").is_enabled()
    photo.rename(tmp_path / "again.jpg")
    browser.give(tmp_path / "again.jpg")
    assert browser.save("matte")[0] == "again.alpha.png"


@needs_gradio
@needs_browser
def test_a_photo_can_be_removed(server, browser, photo):
    browser.open(server.url)
    browser.give(photo)
    browser.remove_photo()
    assert browser.results() == set()
    assert not browser.button("Save matte").is_enabled()
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

    def shows_the_last():
        made = server.folder().rglob("photo2.alpha.png")
        return browser.shows({path.parent.name for path in made})

    wait_for(shows_the_last)
    assert browser.save("matte")[0] == "photo2.alpha.png"


@needs_gradio
@needs_browser
def test_photos_can_be_pasted(server, browser, model, tmp_path):
    Image.fromarray(shaded(60, 90)).save(tmp_path / "image.png")
    expected, _ = by_predict(model, tmp_path / "image.png", tmp_path / "out")
    browser.open(server.url)
    browser.paste(tmp_path / "image.png")
    assert browser.save("matte") == ("image.alpha.png", expected)


@needs_gradio
@needs_browser
def test_visitors_keep_apart_and_leave_nothing_behind(server, browser, tmp_path):
    photos = [tmp_path / "one.png", tmp_path / "other.png"]
    tabs = []
    for seed, path in enumerate(photos):
        Image.fromarray(shaded(60, 90, seed)).save(path)
        tabs.append(browser.open(server.url))
        browser.give(path)
        assert browser.save("matte")[0] == f"{path.stem}.alpha.png"
    browser.driver.switch_to.window(tabs[0])
    assert browser.save("matte")[0] == "one.alpha.png"
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
