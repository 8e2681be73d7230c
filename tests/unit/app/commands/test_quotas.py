"""Who sends too many commands is told when to come again, and delays nobody else."""

import pytest

from meshnode.app.commands.quotas import NAMES_MAX, OF_PEER, OF_SIGNER, Allowance, Quota
from meshnode.core.errors import ExhaustedError


def test_a_quota_refuses_what_is_too_much_and_says_when_to_come_again():
    quota = Quota(Allowance(burst=2, per_s=4.0), "this peer")
    quota.take("a", 10.0)
    quota.take("a", 10.0)
    with pytest.raises(ExhaustedError) as refused:
        quota.take("a", 10.0)
    assert refused.value.hint == "try again in 0.25 s"
    quota.take("b", 10.0)
    quota.take("a", 10.25)
    with pytest.raises(ExhaustedError):
        quota.take("a", 10.3)


def test_a_quota_remembers_so_many_names_and_survives_a_clock_that_goes_back():
    quota = Quota(Allowance(burst=1, per_s=0.001), "this peer")
    for number in range(NAMES_MAX):
        quota.take(str(number), 10.0)
    with pytest.raises(ExhaustedError):
        quota.take("0", 5.0)
    quota.take("another", 10.0)
    quota.take("0", 10.0)  # the oldest was forgotten


def test_the_quotas_let_a_fan_out_to_all_sessions_of_a_node_through():
    assert min(OF_PEER.burst, OF_SIGNER.burst) > 1000
