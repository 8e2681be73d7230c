"""One error in a sentence: its exit code, its words, and nothing else on stderr."""

from e2e.fleet import Node

LOCAL = ("--listen", "127.0.0.1:0", "--no-mdns")


def refused(node: Node, code: int, said: tuple[str, ...], *words: str, stdin: str = "") -> str:
    """Ask for something impossible; returns what stderr says, which is one error and no more."""
    answer = node.call(*words, "-o", "json", stdin=stdin)
    told = [line for line in answer.err.splitlines() if not line.startswith("warning: ")]
    assert answer.code == code, (words, answer)
    assert len(told) == 1, (words, answer.err)
    assert answer.out == "", answer.out
    error = answer.error
    for one in said:
        assert one in error["message"] + error["hint"], (one, error)
    return error["message"]
