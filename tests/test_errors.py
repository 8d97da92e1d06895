"""An error of ours never looks like the user's."""

import errno

import pytest

from kmatting.bugs import MOST_IN_A_ROW, BugCounter, attempt, is_expected
from kmatting.errors import Error, ImageError


def failing(error):
    def function(*arguments):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImageError("bad"), True),
        (MemoryError(), True),
        (PermissionError(errno.EACCES, "denied", "a.jpg"), True),
        (OSError(errno.ENOSPC, "full"), True),
        (OSError("no number and no path"), False),
        (ValueError("bad"), False),
        (IndexError(), False),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), False),
    ],
)
def test_what_is_a_bug(error, expected):
    assert is_expected(error) is expected


def test_an_item_of_many_fails_with_its_reason(capsys):
    bugs = BugCounter()
    assert bugs.problem("a result") is None
    assert bugs.problem(None) is None
    assert bugs.problem(attempt(failing(Error("a.jpg: bad")), 1)) == "a.jpg: bad"
    assert bugs.problem(MemoryError()) == "not enough memory"
    assert bugs.status(1) == 1
    assert capsys.readouterr().err == ""


def test_the_first_bug_has_its_traceback_and_the_others_continue(capsys):
    bugs = BugCounter()
    assert bugs.problem(attempt(failing(ValueError("wrong\nslice")))) == (
        "internal error (ValueError: wrong slice)"
    )
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "internal error: this is a bug of kmatting (kmatting/bugs.py, line " in err
    assert bugs.problem(attempt(failing(IndexError()))) == "internal error (IndexError)"
    assert capsys.readouterr().err == ""
    assert bugs.status(0) == bugs.status(1) == 70


def test_ten_bugs_in_a_row_end_the_run():
    bugs = BugCounter()
    for _ in range(MOST_IN_A_ROW - 1):
        bugs.problem(KeyError("x"))
    bugs.problem("a result")
    for _ in range(MOST_IN_A_ROW - 1):
        bugs.problem(KeyError("x"))
    with pytest.raises(KeyError) as stop:
        bugs.problem(KeyError("the tenth"))
    assert stop.value.args == ("the tenth",)
    assert "10 in a row" in stop.value.__notes__[0]


def test_attempt_returns_results_and_lets_interruptions_through():
    assert attempt(max, 1, 2) == 2
    with pytest.raises(KeyboardInterrupt):
        attempt(failing(KeyboardInterrupt()))
