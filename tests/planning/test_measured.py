"""The planner's peak memory against that of real trainings on a CPU."""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks.measure_memory import CASES, measure, planned

BOUND = 0.10

# One of each kind; the script measures all.
SOME = [
    pytest.param("sft", marks=pytest.mark.slow),
    pytest.param("checkpointing", marks=pytest.mark.long),
    pytest.param("autocast", marks=pytest.mark.long),
    pytest.param("lora", marks=pytest.mark.long),
    pytest.param("nf4-checkpointing", marks=pytest.mark.slow),
    pytest.param("dpo-precomputed", marks=pytest.mark.slow),
]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads and resets /proc/self/status")
@pytest.mark.parametrize("name", SOME)
def test_peak_memory_is_within_a_tenth_of_measured(name: str) -> None:
    growth, memory = measure(name)["growth"], planned(CASES[name])
    assert abs(memory.total / growth - 1) < BOUND, (name, growth, memory)
