"""What a request is billed as."""

import pytest

from meshnode.core.ledger.tiers import anywhere, tier_of, tier_parts


@pytest.mark.parametrize(
    ("service", "prompt_tokens", "tier"),
    [
        ("", 10, "standard"),
        ("default", 32_000, "standard"),
        ("auto", 32_001, "standard>32000"),
        ("Batch", 200_001, "batch>200000"),
        ("a>b#c", 0, "abc"),
        ("standard+us", 0, "standardus"),  # a place is not for a service to tell
        ("flex", 10**9, "flex>524288"),
        (" x\ud800" + "y" * 999, 0, "x?" + "y" * 62),
    ],
)
def test_the_tier_says_what_a_request_is_billed_as(service: str, prompt_tokens: int, tier: str):
    assert tier_of(service, prompt_tokens) == tier


@pytest.mark.parametrize(
    ("service", "prompt_tokens", "tier"),
    [("", 10, "standard+us"), ("fast", 10, "fast+us"), ("batch", 200_001, "batch+us>200000")],
)
def test_the_tier_says_where_a_request_was_kept_if_that_costs_more(service, prompt_tokens, tier):
    assert tier_of(service, prompt_tokens, "us") == tier
    assert anywhere(tier) == tier_of(service, prompt_tokens)
    assert anywhere(f"{tier}#mark") == f"{anywhere(tier)}#mark"


def test_a_tier_that_nobody_wrote_has_no_step():
    assert tier_parts("standard>200000") == ("standard", 200_000)
    assert tier_parts("odd>²") == ("odd", 0)
    assert tier_parts("odd>" + "9" * 99) == ("odd", 0)
