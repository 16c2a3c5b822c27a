"""Damaged files end in an error of ours or in their own pixels; never in a crash, a hang or other pixels."""

import os

import fuzz_inputs
import pytest
from fuzz_cases import base_files, damaged, judge, run

from decr_scene.pipeline import run as run_module

COUNT = int(os.environ.get("DECR_SCENE_FUZZ", "60"))
"""How many cases: ``DECR_SCENE_FUZZ=500`` for the long run."""


@pytest.mark.slow
@pytest.mark.timeout(60 + 30 * COUNT)
def test_damaged_files_end_in_an_error_of_ours_or_in_their_own_pixels():
    outcomes = run(list(range(COUNT)))
    assert [outcome.number for outcome in outcomes] == list(range(COUNT))
    assert [outcome for outcome in outcomes if not outcome.good] == []
    assert {outcome.verdict for outcome in outcomes} == {"refused", "same"}


@pytest.mark.slow
def test_inputs_of_strangers_end_in_an_answer_or_an_error_of_ours():
    outcomes = [fuzz_inputs.outcome(number) for number in range(COUNT)]
    assert [told for _, told in outcomes if told] == []
    assert {verdict for verdict, _ in outcomes} == {"read", "refused"}


def test_the_cases_do_not_change(tmp_path):
    bases = base_files(tmp_path)
    assert damaged(bases, 7) == damaged(bases, 7) != damaged(bases, 8)


def test_the_judge_sees_a_wrong_output(tmp_path, monkeypatch):
    """One pixel changed behind the program's back is noticed."""
    data = base_files(tmp_path)[0]
    assert judge(tmp_path, 0, data).verdict == "same"
    source = run_module.FileSource.read

    def read(self, span):
        pixels = source(self, span)
        pixels[0, 0, 0] += 1
        return pixels

    monkeypatch.setattr(run_module.FileSource, "read", read)
    assert judge(tmp_path, 1, data).verdict == "wrong"
