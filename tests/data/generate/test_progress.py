"""What is said of a run while it is under way."""

from __future__ import annotations

import pytest

from posttrain.data.generate import progress
from posttrain.data.generate.progress import Meter, Status, following
from posttrain.data.generate.stats import Stats


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_are_those_of_the_last_while() -> None:
    clock, stats = Clock(), Stats()
    meter = Meter(stats.snapshot, clock)
    status = Status(done=0, total=10)
    assert meter.text(status) == "0 tok/s in, 0 out; 0 at once"
    for second in range(1, 121):
        clock.now += 1
        stats.prompt_tokens += 100 if second <= 60 else 20_000
        stats.completion_tokens += 300 if second <= 60 else 10
        stats.in_flight = 7
        text = meter.text(status)
        if second == 60:
            assert text == "100 tok/s in, 300 out; 7 at once"
    assert text == "20.0k tok/s in, 10 out; 7 at once"


def test_the_time_left_is_at_the_rate_of_this_run() -> None:
    clock = Clock()
    meter = Meter(clock=clock)
    assert meter.left(Status(done=500, kept=500, total=1000)) is None
    clock.now += 10
    assert meter.left(Status(done=600, kept=500, total=1000)) == pytest.approx(40)
    assert meter.left(Status(done=600, kept=500)) is None
    assert meter.left(Status(done=1000, kept=500, total=1000)) is None
    clock.now += 90
    assert meter.text(Status(done=600, kept=500, total=8000)) == "2:03:20 left"


def test_what_went_wrong_is_listed_by_kind() -> None:
    stats = Stats()
    for kind in ["429"] * 3 + ["503"] * 2 + ["time-out", "connection", "malformed answer"]:
        stats.retried(kind)
    text = Meter(stats.snapshot).text(Status(done=1, failed={"refused": 2, "no answer": 1500}))
    assert "retried 429 (3), 503 (2), connection (1), 2 others" in text
    assert "failed rows no answer (1,500), refused (2)" in text


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    with following("answers", shown=False) as shown:
        for second in range(61):
            clock.now = 100.0 + second
            shown.update(Status(done=100 * second, total=12000))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "generate  answers: 3,000 of 12,000 rows",
        "generate  answers: 6,000 of 12,000 rows",
    ]


def test_a_bar_says_how_many_rows_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    stats = Stats()
    with following("answers", stats.snapshot, shown=True) as shown:
        shown.update(Status(done=1, total=12, active=3))
        shown.update(Status(done=9, total=12), last=True)  # three could not be used
    said = capsys.readouterr().err
    assert "answers" in said
    assert "9/9" in said
