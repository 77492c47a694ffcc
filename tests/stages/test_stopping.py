"""Ctrl-C and SIGTERM while nothing has to be saved first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posttrain.cli import main
from posttrain.errors import Interrupted
from posttrain.stages import run
from posttrain.stages.context import Context
from posttrain.stopping import ending_at_once
from tests.stages.fakes import FakeStages, loaded

NUMBERS = [signal.SIGTERM, signal.SIGINT]
GOES_ON = "; the same command goes on from there"


def handlers() -> list[object]:
    """Return what handles the signals now."""
    return [signal.getsignal(number) for number in NUMBERS]


def sending(number: int) -> Callable[[Context], None]:
    """Return a hook that sends this process a signal."""

    def hook(context: Context) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)
        raise AssertionError("the signal did not end the build")

    return hook


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("stage", "reached"),
    [("train", "before its first step, so nothing was lost"), ("rows", "before it was finished")],
)
def test_a_build_ends_at_once_and_the_same_command_goes_on(
    tmp_path: Path, number: int, stage: str, reached: str
) -> None:
    before = handlers()
    with pytest.raises(Interrupted) as caught:
        run(loaded(tmp_path), stages=FakeStages(hooks={stage: sending(number)}).chain())
    assert str(caught.value) == f"{stage} stopped {reached}{GOES_ON}"
    assert caught.value.exit_code == {signal.SIGTERM: 0, signal.SIGINT: 130}[signal.Signals(number)]
    assert handlers() == before
    again = FakeStages()
    run(loaded(tmp_path), stages=again.chain())
    assert again.built == (["train+", "tune"] if stage == "train" else ["rows", "train", "tune"])


def test_a_stage_says_how_far_it_is(tmp_path: Path) -> None:
    def at_the_end(context: Context) -> None:
        context.reached = "after its last step, which is saved"
        sending(signal.SIGTERM)(context)

    with pytest.raises(Interrupted, match=r"^train stopped after its last step, which is saved; "):
        run(loaded(tmp_path), stages=FakeStages(hooks={"train": at_the_end}).chain())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_command_says_it_on_standard_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    recipe = tmp_path / "recipe.yaml"
    data = "data: {sft: [{source: generic, path: 'builtin:samples/messages.jsonl', license: Apache-2.0}]}\n"
    head = f"name: stopped\noutput_dir: {tmp_path / 'out'}\nmodel: {{base: org/model}}\nsft: {{}}\n"
    recipe.write_text(head + data)
    stages = FakeStages(hooks={"train": sending(number)})
    monkeypatch.setattr("posttrain.stages.runner.chain", lambda recipe: stages.chain())
    assert main(["run", str(recipe)]) == code
    told = f"posttrain: train stopped before its first step, so nothing was lost{GOES_ON}\n"
    assert capsys.readouterr().err == told

    def while_the_recipe_is_read(*arguments: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr("posttrain.recipe.load", while_the_recipe_is_read)
    assert main(["sft", str(recipe)]) == code
    assert capsys.readouterr().err == f"posttrain: stopped before a stage was begun{GOES_ON}\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_library_makes_of_the_end_does_not_matter(number: int) -> None:
    def import_module() -> None:
        try:
            os.kill(os.getpid(), number)
        except BaseException as error:
            raise RuntimeError("the module cannot be imported") from error

    with pytest.raises(Interrupted, match=r"^stopped here; "), ending_at_once(lambda: "stopped here"):
        import_module()


def test_errors_without_a_signal_are_left_as_they_are() -> None:
    for error in (KeyboardInterrupt, ValueError, SystemExit):
        with pytest.raises(error), ending_at_once(lambda: "stopped"):
            raise error


def test_who_can_save_handles_the_signals_meanwhile() -> None:
    received = []
    before = handlers()
    with ending_at_once(lambda: "outer"):
        outer = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, outer)
    assert handlers() == before


def test_a_second_sigterm_while_things_are_closed_is_of_no_account() -> None:
    closed = []

    def work() -> None:
        with ending_at_once(lambda: "outer"):
            try:
                with ending_at_once(lambda: "inner"):
                    os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                closed.append(True)

    for _ in range(2):  # the second time as the first
        with pytest.raises(Interrupted, match=r"^inner; "):
            work()
    assert closed == [True, True]


def test_a_second_ctrl_c_does_not_wait() -> None:
    closed = []

    def work() -> None:
        with ending_at_once(lambda: "outer"):
            try:
                with ending_at_once(lambda: "inner"):
                    os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                closed.append(True)

    with pytest.raises(Interrupted, match=r"^inner; "):
        work()
    assert closed == []


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending_at_once(lambda: "stopped"):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_worker_dies_of_sigterm() -> None:
    forking = multiprocessing.get_context("fork")
    begun = forking.Event()

    def work() -> None:
        begun.set()
        time.sleep(20)

    with ending_at_once(lambda: "stopped"):
        worker = forking.Process(target=work)
        worker.start()
        assert begun.wait(timeout=10)  # a signal that comes while a process forks is lost in it
        worker.terminate()
        worker.join(timeout=10)
        assert worker.exitcode == -signal.SIGTERM


def test_other_threads_can_run_a_chain(tmp_path: Path) -> None:
    stages = FakeStages()
    thread = threading.Thread(target=run, args=(loaded(tmp_path),), kwargs={"stages": stages.chain()})
    thread.start()
    thread.join()
    assert stages.built == ["rows", "train", "tune"]
