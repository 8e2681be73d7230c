"""`run` refuses wrong words before it starts anything."""

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--title", "x" * 257), "title"),
        (("--agent-id", "a/b"), "slash"),
        (("--spec", ""), "empty"),
        (("--spec", "a,"), "empty"),
        (tuple(word for n in range(33) for word in ("--label", f"k{n}=v")), "labels"),
    ],
    ids=["title", "agent id", "spec", "specs", "labels"],
)
def test_words_that_no_node_takes_start_no_node(run, tmp_path, words, said):
    code, out, err = run("run", *words, "--", "true")
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "home").exists()
