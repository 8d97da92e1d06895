"""The `kmatting` command, and what its subcommands share."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kmatting import __version__, cli
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


@pytest.mark.parametrize("error", [ValueError("bad"), OSError("bad"), MemoryError()])
def test_expected_errors_are_one_line(capsys, error):
    assert raising(error)() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+\n", err)


def test_notes_follow_the_message(capsys):
    error = OSError("disk full")
    error.add_note("go on with --resume")
    assert raising(error)() == 2
    assert capsys.readouterr().err == "error: disk full; go on with --resume\n"


def test_unexpected_errors_keep_their_traceback():
    with pytest.raises(KeyError):
        raising(KeyError("a fault of ours"))()


@pytest.mark.parametrize("package", sorted(EXTRA_OF))
def test_missing_package_names_its_extra(capsys, package):
    error = ModuleNotFoundError(f"No module named '{package}.x'", name=f"{package}.x")
    assert raising(error)() == 2
    err = capsys.readouterr().err
    assert err == f'error: {package} is not installed: pip install -e ".[{EXTRA_OF[package]}]"\n'


def test_missing_module_of_our_own_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError):
        raising(ModuleNotFoundError("No module named 'kmatting.x'", name="kmatting.x"))()


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
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, f"{message}\n")


def test_signal_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    raising(ValueError("bad"))()
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
