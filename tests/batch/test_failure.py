"""What is read of a failed forward is data: operands, conditions and names, whatever its message says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peft_inspect.batch.failure import Failure, Watched


def failed(forward, **inputs) -> Failure:
    watched = Watched()
    try:
        with watched:
            forward(**inputs)
    except Exception as error:
        return watched.failure(error)
    raise AssertionError("it passed")


def wants_features(features=None, mask=None):
    if features is None:
        raise ValueError("mask must be given")  # no message is to be trusted
    return features


def asserts_features(features=None):
    assert features is not None, "something else"
    return features


def reads_features(features=None, mask=None):
    return features.shape


def takes_one_of_two(input_ids=None, inputs_embeds=None):
    if (input_ids is None) ^ (inputs_embeds is not None):
        raise ValueError("wrong")


def takes_no_labels(labels=None, features=None):
    if labels is not None:
        dimensions = labels.dim()
        if dimensions == 1:
            raise ValueError("features are wrong")


@pytest.mark.parametrize("forward", [wants_features, asserts_features, reads_features])
def test_what_the_failing_lines_do_not_find_is_absent(forward):
    assert failed(forward).absent == ("features",)


def test_what_a_call_was_not_given_is_absent_under_the_name_of_the_caller():
    def outer(states=None, other=None):
        return wants_features(states)

    assert failed(outer).absent == ("features", "states")


def test_of_two_that_exclude_each_other_both_are_present_or_both_absent():
    both = failed(takes_one_of_two, input_ids=1, inputs_embeds=2)
    assert (both.present, both.absent) == (("input_ids", "inputs_embeds"), ())
    neither = failed(takes_one_of_two)
    assert (neither.present, neither.absent) == ((), ("input_ids", "inputs_embeds"))


def test_the_nearest_condition_that_asks_for_presence_counts():
    assert failed(takes_no_labels, labels=torch.zeros(1)).present == ("labels",)


@pytest.mark.parametrize(
    ("operation", "first", "second", "apart"),
    [
        (torch.add, (1, 4, 8), (6, 8), [(-2, 1, 4, 6)]),
        (torch.mul, (2, 3), (2, 5), [(-1, 1, 3, 5)]),
        (torch.matmul, (4, 3), (5, 2), [(-1, 1, 3, 5)]),
        (nn.functional.linear, (1, 4, 3), (7, 5), [(-1, 2, 3, 5)]),
        (torch.dot, (3,), (4,), []),
    ],
)
def test_sizes_apart_come_from_the_operands(operation, first, second, apart):
    failure = failed(lambda: operation(torch.zeros(first), torch.zeros(second)))
    assert list(failure.apart) == apart
    assert failure.absent == ()


def test_an_error_that_the_model_wraps_keeps_its_operands():
    def wraps():
        try:
            return torch.zeros(2) + torch.zeros(3)
        except RuntimeError as error:
            raise ValueError("no") from error

    assert list(failed(wraps).apart) == [(-1, 0, 2, 3)]


def test_an_error_that_the_model_catches_is_no_failure_of_its_own():
    def catches():
        try:
            return torch.zeros(2) + torch.zeros(3)
        except RuntimeError:
            pass
        raise ValueError("another")

    assert failed(catches).operation == ""


def test_tensors_at_hand_are_found_by_name():
    def counts(ids):
        audio_features = torch.zeros(5, 4)
        raise ValueError(f"{len(ids)} and {len(audio_features)} do not match")

    assert [(name, tuple(value.shape)) for name, value in failed(counts, ids=[1]).values] == [("audio_features", (5, 4))]
