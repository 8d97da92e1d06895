"""A `Matter` in forked and spawned processes and in threads.

Each script runs in a process of its own, where a hang or a crash shows.
"""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import red_model

from kmatting import Matter

PREAMBLE = """
import multiprocessing, os, sys, threading
import numpy as np
from kmatting import Matter
photo = np.full((48, 64, 3), 51, np.uint8)
"""


def run(script, *arguments):
    """Runs a script that must end by itself with status 0; returns what it wrote."""
    command = [sys.executable, "-c", PREAMBLE + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def models():
    return red_model.folder()


def test_a_forked_pool_uses_the_parents_tflite_model():
    """The shipped model is large enough to wait for its threads; `red.tflite` is not."""
    script = """
from kmatting import Matte
from kmatting.images import Photo

matter = Matter(threads=4)
soft = np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(48, 64)

def predict(index):
    # Colours are estimated for a matte that is soft for certain.
    return matter(photo).alpha, np.asarray(Matte(Photo(photo), soft).cutout())

expected = predict(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    results = pool.map_async(predict, range(3)).get(timeout=60)
results.append(predict(0))  # the parent's still works
for result in results:
    for received, wanted in zip(result, expected):
        np.testing.assert_array_equal(received, wanted)
"""
    run(script)


def test_a_forked_pool_uses_the_parents_onnx_model(models):
    script = """
matter = Matter(sys.argv[1], threads=4)
matter(photo)

def predict(index):
    return matter(photo).alpha.mean()

os.chdir("/")
with multiprocessing.get_context("fork").Pool(2) as pool:
    results = pool.map_async(predict, range(3)).get(timeout=60)
print(*results, predict(0))
"""
    command = [sys.executable, "-c", PREAMBLE + script, "red.onnx"]
    done = subprocess.run(command, cwd=models, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [float(word) for word in done.stdout.split()] == pytest.approx([0.2] * 4)
    assert done.stderr == ""


def test_a_fork_while_another_thread_predicts(models):
    """The child copies a lock that nobody will release."""
    script = """
matter = Matter(sys.argv[1], threads=4)
matter(photo)
lock = matter._locks[os.getpid()]
lock.acquire()
child = os.fork()
if child == 0:
    print(matter(photo).alpha.mean(), flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
"""
    assert float(run(script, models / "red.tflite").stdout) == pytest.approx(0.2)


@pytest.mark.parametrize("use", ["pass", "del matter", "matter(photo)"])
def test_a_forked_child_ends_well(models, use):
    """Freeing the parent's interpreter would crash the child, at the latest at its exit."""
    script = f"""
matter = Matter(sys.argv[1], threads=4)
matter(photo)
child = os.fork()
if child == 0:
    {use}
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
"""
    run(script, models / "red.tflite")


def test_the_model_is_loaded_again_without_its_file(models, tmp_path):
    script = """
matter = Matter(sys.argv[1], threads=4)
os.remove(sys.argv[1])
child = os.fork()
if child == 0:
    print(matter(photo).alpha.mean(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    copy = tmp_path / "red.tflite"
    copy.write_bytes((models / "red.tflite").read_bytes())
    assert float(run(script, copy).stdout) == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["red.keras", "saved"])
def test_tensorflow_refuses_a_fork_at_once(models, name):
    script = """
import signal
matter = Matter(sys.argv[1], size=64)
matter(photo)
for use in (lambda: matter(photo), lambda: Matter(sys.argv[1])):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            use()
        except ValueError as error:
            print(error, flush=True)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
"""
    lines = run(script, models / name).stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(str(models / name))
        assert "forked process" in line and "spawn" in line


@pytest.mark.parametrize("name", ["red.keras", "saved", "red.tflite", "red.onnx"])
def test_pickle(models, name):
    matter = Matter(models / name)
    copy = pickle.loads(pickle.dumps(matter))
    assert repr(copy) == repr(matter)
    photo = np.full((48, 64, 3), 51, np.uint8)
    np.testing.assert_array_equal(copy(photo).alpha, matter(photo).alpha)
    assert pickle.loads(pickle.dumps(Matter(models / "red.keras", size=64))).size == 64
    assert pickle.loads(pickle.dumps(Matter())).frame == Matter().frame


def test_pickle_from_another_folder(models, monkeypatch, tmp_path):
    monkeypatch.chdir(models)
    pickled = pickle.dumps(Matter("red.tflite"))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickled).frame == red_model.FRAME


def test_threads_share_one_interpreter(models):
    """Without the lock the interpreter crashes, or mixes up the photos."""
    script = """
matter = Matter(sys.argv[1], threads=2)
wrong = []

def predict(level):
    for _ in range(200):
        alpha = matter(np.full((48, 64, 3), level, np.uint8)).alpha
        if not np.allclose(alpha, level / 255, atol=1e-3):
            wrong.append(level)

threads = [threading.Thread(target=predict, args=(51 * index,)) for index in range(1, 6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong
"""
    run(script, models / "red.tflite")


@pytest.mark.parametrize("name", ["red.tflite", "red.onnx"])
def test_loading_and_predicting_writes_no_more_than_litert_does(models, name):
    done = run("Matter(sys.argv[1])(photo)", models / name)
    notice = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
    assert done.stdout == ""
    assert done.stderr in (["", notice] if name == "red.tflite" else [""])
    run("os.close(2)\nMatter(sys.argv[1])(photo)", models / name)


def test_what_other_threads_write_is_not_held_back(models):
    """Loading a model leaves the standard error of the process alone."""
    script = """
import tempfile
pipe = os.fstat(2).st_ino
seen = []
audit = lambda event, arguments: seen.append(os.fstat(2).st_ino) if event == "import" else None
sys.addaudithook(audit)
Matter(sys.argv[1])(photo)
assert seen and set(seen) == {pipe}, seen
"""
    run(script, models / "red.tflite")


def test_remove_in_a_child_that_is_forked_while_the_model_loads():
    """The child copies a lock that nobody will release."""
    script = """
import signal
from kmatting.inference import remove as module
module._loading.acquire()
child = os.fork()
if child == 0:
    signal.alarm(60)
    print(module.remove(photo).shape, flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
"""
    assert run(script).stdout == "(48, 64, 4)\n"


@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit(0)"])
def test_a_stream_is_not_continued_in_a_forked_child(models, end):
    script = f"""
import signal
matter = Matter(sys.argv[1])
stream = matter.stream([photo] * 20)
next(stream)
child = os.fork()
if child == 0:
    signal.alarm(60)
    try:
        next(stream)
    except ValueError as error:
        print(error, flush=True)
    print(len(list(matter.stream([photo] * 3))), flush=True)
    {end}
_, status = os.waitpid(child, 0)
assert status == 0, status
print(len(list(stream)))
"""
    said, anew, left = run(script, models / "red.tflite").stdout.splitlines()
    assert said.startswith("These photos were begun before this process was forked")
    assert (anew, left) == ("3", "19")
