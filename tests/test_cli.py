"""The `kmatting` command, and what its subcommands share."""

import contextlib
import errno
import io
import os
import platform
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from kmatting import __version__, cli, terminal
from kmatting.errors import Error
from kmatting.extras import EXTRA_OF

KMATTING = [sys.executable, "-m", "kmatting"]


def run(*arguments, **options):
    return subprocess.run([*KMATTING, *arguments], capture_output=True, text=True, **options)


def raising(error):
    @cli.command
    def main(argv=None):
        raise error

    return main


def test_help_lists_every_command_without_importing_numpy():
    code = (
        "import sys; from kmatting.cli import main; main(['--help']); "
        "assert not {'numpy', 'PIL', 'tensorflow'} & set(sys.modules), sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name in cli.COMMANDS:
        assert re.search(rf"^  {name} +\w+", done.stdout, re.MULTILINE)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux does")
def test_a_program_starts_no_threads_for_matrix_products():
    code = (
        "import os; from kmatting import cli\n"
        "def main():\n"
        "    import numpy\n"
        "    print(len(os.listdir('/proc/self/task')))\n"
        "    return 0\n"
        "cli.main = main; cli.run()"
    )
    environment = {key: value for key, value in os.environ.items() if "THREADS" not in key}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_version():
    assert run("--version").stdout == f"kmatting {__version__}\n"


def test_unknown_command_names_the_nearest(capsys):
    assert cli.main(["predit"]) == 2
    err = capsys.readouterr().err
    assert err == "error: predit: no such command. Did you mean predict? See kmatting --help.\n"


def test_runs_a_command_with_the_rest_of_the_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", "--help"])
    assert stop.value.code == 0
    assert "usage: kmatting evaluate" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        Error("bad"),
        FileNotFoundError(errno.ENOENT, "bad", "a.jpg"),
        OSError(errno.ENOSPC, "disk full"),
        MemoryError(),
    ],
)
def test_expected_errors_are_one_line(capsys, error):
    assert raising(error)() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+\n", err)


def test_notes_follow_the_message(capsys):
    error = Error("disk full")
    error.add_note("go on with --resume")
    assert raising(error)() == 2
    assert capsys.readouterr().err == "error: disk full; go on with --resume\n"


@pytest.mark.parametrize(
    "error",
    [KeyError("a fault of ours"), ValueError("a fault of ours"), OSError("a fault of ours")],
)
def test_other_errors_are_reported_as_bugs(capsys, error):
    assert raising(error)() == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):\n")
    assert "a fault of ours" in err
    last = err.splitlines()[-1]
    assert last.startswith("internal error: this is a bug of kmatting (kmatting/cli.py, line ")
    assert f"kmatting {__version__}, Python {platform.python_version()}" in last


def test_debug_shows_where_an_error_of_the_user_came_from(capsys, monkeypatch):
    error = Error("bad")
    error.__cause__ = KeyError("the cause")
    monkeypatch.setenv("KMATTING_DEBUG", "1")
    assert raising(error)() == 2
    err = capsys.readouterr().err
    assert "KeyError: 'the cause'" in err
    assert "Traceback" in err
    assert err.endswith("error: bad\n")


@pytest.mark.parametrize("package", sorted(EXTRA_OF))
def test_missing_package_names_its_extra(capsys, package):
    error = ModuleNotFoundError(f"No module named '{package}.x'", name=f"{package}.x")
    assert raising(error)() == 2
    err = capsys.readouterr().err
    assert err == f'error: {package} is not installed: pip install -e ".[{EXTRA_OF[package]}]"\n'


def test_missing_module_of_our_own_is_a_bug(capsys):
    error = ModuleNotFoundError("No module named 'kmatting.x'", name="kmatting.x")
    assert raising(error)() == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status", "message"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signals_end_in_one_line(number, status, message):
    code = (
        "import sys, time; from kmatting.cli import command\n"
        "@command\n"
        "def main(argv=None):\n"
        "    print('ready', flush=True); time.sleep(60)\n"
        "sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, f"{message}\n")


def test_signal_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    raising(Error("bad"))()
    assert signal.getsignal(signal.SIGTERM) is before


def shell(line):
    command = line.replace("KMATTING", " ".join(KMATTING))
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True)


@pytest.mark.parametrize(
    "line",
    [
        "KMATTING --help | true; exit ${PIPESTATUS[0]}",
        "KMATTING predict --help | true; exit ${PIPESTATUS[0]}",
        "PYTHONUNBUFFERED=1 KMATTING --help | true; exit ${PIPESTATUS[0]}",
        "KMATTING --help >&-",
        "KMATTING --help <&- 2>&-",
    ],
)
def test_closed_streams_are_no_fault(line):
    done = shell(line)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_behind_standard_output_is_reported():
    done = shell("unset PYTHONUNBUFFERED; KMATTING predict --help > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: standard output: No space left on device\n"


def test_closed_standard_error_is_not_mistaken_for_a_file(tmp_path):
    """Without a guard, the next file that is opened would get the number of standard error."""
    code = (
        "import os, sys; from kmatting.cli import command\n"
        "@command\n"
        "def main(argv=None):\n"
        f"    file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    os.write(2, b'noise of a native library')\n"
        "    return 0\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" 2>&-', sys.executable, code], capture_output=True
    )
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "x", "9" * 6000])
def test_at_least_refuses(text):
    with pytest.raises(Exception, match="whole number of at least 1"):
        cli.at_least(1)(text)


NAMES = "print-\u732b-\udcff-\x1b[31m.png"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_of_any_encoding_takes_any_name(encoding):
    code = (
        "import sys; from kmatting import cli\n"
        "@cli.command\n"
        "def main(argv=None):\n"
        f"    cli.say({NAMES!r}); cli.complain({NAMES!r})\n"
        "    return 0\n"
        "sys.exit(main())"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    cat = "\u732b" if encoding == "utf-8" else "\\u732b"
    expected = f"print-{cat}-\\udcff-\\x1b[31m.png\n".encode()
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, expected)


def test_output_is_left_as_strict_as_it_was():
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    with contextlib.redirect_stdout(stream):
        raising(Error("bad"))()
    assert stream.errors == "strict"


@pytest.mark.parametrize("arguments", [["predict", "a.jpg", "--size", "\x1b[31m"], ["\x1b[31m"]])
def test_control_characters_of_arguments_are_escaped(capsys, arguments):
    with contextlib.suppress(SystemExit):
        cli.main(arguments)
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\\x1b" in err


def test_warnings_are_escaped(capsys):
    @cli.command
    def main(argv=None):
        sys.stderr.write(warnings.formatwarning("a\x1bb", UserWarning, cli.__file__, 1))
        return 0

    main()
    assert capsys.readouterr().err == "warning: a\\x1bb\n"


def lines_of_progress(capsys, steps, **options):
    """Each item takes so many seconds; returns what was printed."""
    terminal.FIRST_LINE = 10  # put back by the fixture that keeps lines out of other tests
    now = [0.0]

    def items():
        for step in steps:
            yield step
            now[0] += step

    assert list(terminal.progress(items(), clock=lambda: now[0], **options)) == list(steps)
    return capsys.readouterr().err.splitlines()


def test_progress_in_a_pipe_is_a_line_now_and_then(capsys):
    lines = lines_of_progress(capsys, [5] * 40, total=40, unit="photo", title="scoring")
    assert lines == [
        "scoring: 2 of 40 photos, 0.2 per second, 3 min left",
        "scoring: 14 of 40 photos, 0.2 per second, 2 min left",
        "scoring: 26 of 40 photos, 0.2 per second, 70 s left",
        "scoring: 38 of 40 photos, 0.2 per second, 10 s left",
    ]


def test_progress_of_an_unknown_number(capsys):
    assert lines_of_progress(capsys, [4] * 4, total=None, unit="frame") == [
        "3 frames, 0.2 per second"
    ]


def test_short_work_shows_no_progress_in_a_pipe(capsys):
    assert lines_of_progress(capsys, [1] * 9, total=9, unit="photo") == []
    assert lines_of_progress(capsys, [90], total=1, unit="photo") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["synthetic", "--count", "1", "--output", "s.tar"],
        ["shard", "pack", "images", "alphas", "s.tfrecord"],
        ["shard", "unpack", "shards", "pairs.zip"],
        ["evaluate", "--predictions", "a", "--alphas", "b", "--output", "rep.csv"],
    ],
)
def test_a_folder_to_write_is_not_called_as_a_file(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    assert re.search(
        r"error: \S+ \S+: names a \.\w+ file, expected a folder", capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def test_progress_in_a_terminal_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(terminal.progress("abc", 3, "photo", "scoring")) == ["a", "b", "c"]
    assert "scoring: 100%" in sys.stderr.getvalue()
    assert "3/3" in sys.stderr.getvalue()
