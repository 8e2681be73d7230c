"""Bodies and parameters are read as they are meant, or refused with the name of what is off."""

import pytest

from meshnode.gateway.problems import Problem
from meshnode.gateway.strict import parse_object, parse_query


def refused(read, *words):
    with pytest.raises(Problem) as raised:
        read()
    problem = raised.value
    assert problem.status == 400
    for word in words:
        assert word in f"{problem.detail} {problem.hint}"
    return problem


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"agent_id=123&direction=north", "not JSON"),
        (b"[]", "no JSON object"),
        (b'"text"', "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"a": 1} {"b": 2}', "not JSON"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"x": {"a": 1, "\\u0061": 2}}', "twice"),
        (b'{"a": "\\ud800"}', "not Unicode"),
        (b'{"\\udfff": 1}', "not Unicode"),
        (b'{"a": "\xff"}', "not Unicode"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": 123456789012345678901}', "too large"),
        (b'{"a": 0.' + b"1" * 40 + b"}", "digits"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper"),
        (b"[" * 60_000, "nested deeper"),
        (b'{"a": "' + b'\\"[' * 20_000 + b"}", "not JSON"),
    ],
)
def test_what_parsers_disagree_on_is_refused(body, words):
    refused(lambda: parse_object(body), words)


def test_brackets_inside_of_texts_nest_nothing():
    body = b'{"a": "' + b"[{" * 1000 + b'\\"", "b": {"c": [1]}}'
    assert parse_object(body).text("a", chars_max=9000).startswith("[{")


@pytest.mark.parametrize("ttl", ["true", "1.0", "1e3", '"60"', "0", "-1", "2592001", "null5"])
def test_a_lifetime_is_a_whole_number_and_nothing_that_looks_like_one(ttl):
    refused(lambda: parse_object(f'{{"ttl": {ttl}}}'.encode()).integer("ttl", 1, 2592000, 3600))


def test_fields_are_read_by_their_kind():
    said = parse_object(b'{"a": "x", "n": 7, "l": ["y"], "m": {"k": "v", "f": 0.30, "b": true}}')
    assert (said.text("a"), said.integer("n", 1, 9, 0), said.texts("l")) == ("x", 7, ("y",))
    assert said.attributes("m") == {"k": "v", "f": "0.30", "b": "true"}
    assert said.text("absent") == ""
    for wrong in (
        lambda: said.text("n"),
        lambda: said.text("absent", needed=True),
        lambda: said.text("a", chars_max=0),
        lambda: said.texts("a"),
        lambda: said.attributes("l"),
        lambda: said.choice("a", ("soft",), "soft"),
        lambda: said.flag("a"),
    ):
        assert refused(wrong).more["field"]
    assert refused(lambda: said.check_known(("a", "n", "l"))).more == {"field": "m"}


def test_parameters_are_known_once_and_never_a_key():
    read = parse_query(
        b"filter=active&label=a%3Db&label=c=d&limit=5", ("filter", "label", "limit"), ("label",)
    )
    assert (read.text("filter"), read.pairs("label")) == ("active", {"a": "b", "c": "d"})
    assert read.count("limit", 1000) == 5
    refused(lambda: parse_query(b"filter=", ("filter",)).text("filter"), "empty")
    key = refused(lambda: parse_query(b"key=smk1_AAAA", ("filter",)), "Authorization")
    assert "AAAA" not in key.detail + key.hint
    refused(lambda: parse_query(b"fliter=x", ("filter",)), "fliter")
    refused(lambda: parse_query(b"a=1&a=2", ("a",)), "twice")
    refused(lambda: parse_query(b"a=%ff", ("a",)))
    refused(lambda: parse_query(b"&".join([b"a=1"] * 100), ("a",)))
    for count in (b"0", b"-1", b"1.5", b"1001", b"9" * 30, b"%D9%A3"):
        refused(lambda count=count: parse_query(b"n=" + count, ("n",)).count("n", 1000), "n")
