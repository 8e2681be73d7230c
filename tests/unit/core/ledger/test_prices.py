import pytest

from meshnode.core.ledger.ledger import Buckets
from meshnode.core.ledger.prices import Rates, cost_nusd, usd_text


def test_every_bucket_has_its_own_rate_and_reasoning_is_a_part_of_output():
    rates = Rates(1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000)
    usage = Buckets(1, 10, 100, 1_000, 10_000, 4_000, 100_000)
    expected = 1 + 20 + 300 + 4_000 + 6_000 * 5 + 4_000 * 6 + 700_000 + 3 * 8
    assert cost_nusd(usage, rates, records=3) == expected


@pytest.mark.parametrize(("pusd", "nusd"), [(499, 0), (500, 0), (501, 1), (1_500, 2), (2_500, 2)])
def test_a_cost_is_rounded_half_to_even(pusd: int, nusd: int):
    assert cost_nusd(Buckets(input=1), Rates(input_pusd=pusd)) == nusd


def test_a_cost_is_rounded_once():
    assert cost_nusd(Buckets(input=2, output=2), Rates(input_pusd=250, output_pusd=250)) == 1


def test_more_reasoning_than_output_is_not_paid_twice():
    assert cost_nusd(Buckets(output=1, reasoning=9), Rates(reasoning_pusd=1_000)) == 1


@pytest.mark.parametrize(
    ("nusd", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (12_500_000_000, "12.5"),
        (3_000_000_000, "3"),
        (-1_000_000_001, "-1.000000001"),
        (10**30, "1" + "0" * 21),
    ],
)
def test_money_is_a_decimal_text_without_exponent(nusd: int, text: str):
    assert usd_text(nusd) == text
