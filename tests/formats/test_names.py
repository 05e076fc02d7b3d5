from peft_inspect.formats.names import brief_ranges, fold, ranges, visible


def test_indices_become_ranges():
    assert ranges([3, 0, 1, 2, 7, 9, 10]) == "0–3,7,9–10"
    assert ranges([0, 1], dash="-") == "0-1"


def test_very_many_ranges_are_told_by_their_step_or_their_ends():
    assert brief_ranges(range(0, 1000, 7)) == "0–994 in steps of 7"
    assert brief_ranges(range(0, 24, 2), gap=", ") == ranges(range(0, 24, 2), gap=", ")
    numbers = [number for number in range(100) if number % 7 and number % 5]
    assert brief_ranges(numbers) == "1–4,6,8–9,11–13,…,99"


def test_paths_that_differ_in_an_index_or_a_name_are_folded():
    paths = [f"model.layers.{index}.self_attn.{name}" for index in range(32) for name in ("q_proj", "v_proj")]
    assert fold(paths) == ("model.layers.0–31.self_attn.{q_proj,v_proj}",)


def test_folding_never_hides_a_difference():
    """Layer 2 lacks one of the two, so it stands apart."""
    paths = [f"layers.{index}.{name}" for index in range(4) for name in ("q", "v") if (index, name) != (2, "v")]
    assert fold(paths) == ("layers.0–1,3.{q,v}", "layers.2.q")


def test_two_nested_stacks_fold_in_both():
    paths = [f"layers.{layer}.experts.{expert}.up" for layer in range(3, 61) for expert in range(256)]
    assert fold(paths) == ("layers.3–60.experts.0–255.up",)


def test_the_root_and_a_parent_among_its_children_are_kept():
    assert fold(["", "a", "a.b"]) == ("", "a", "a.b")


def test_what_steers_a_terminal_is_spelled_out():
    assert visible("q_proj\x1b[31m") == "q_proj\\x1b[31m"
    assert visible("a\u202eb\nc") == "a\\u202eb\\x0ac"
    assert visible("a\nb", keep="\n") == "a\nb"
    assert visible("größe [bold] % ::") == "größe [bold] % ::"
