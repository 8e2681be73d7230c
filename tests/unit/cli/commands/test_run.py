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


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_an_agents_option_of_completion_is_not_taken_for_ours(run, monkeypatch, tmp_path, option):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, err = run("-q", "run", "--title", "x" * 257, "tool", option, "bash")
    assert (code, out) == (2, "")
    assert "title" in err, "it was read as a word of the agent's command"
    assert list(tmp_path.iterdir()) == []
