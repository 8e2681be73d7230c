"""What a failure is over HTTP does not depend on which node it happened at."""

import pytest

from meshnode.client.targets.wishes import EndedError
from meshnode.core.errors import ExhaustedError, error_of, fields_of
from meshnode.gateway.problems import STATUS_OF_ERROR, problem_of


@pytest.mark.parametrize("kind", [one for one in STATUS_OF_ERROR if one is not EndedError])
def test_an_error_that_crossed_a_process_has_the_status_that_it_has_here(kind):
    here = kind("too many commands of this peer", "try again in 0.01 s")
    there = error_of(fields_of(here))
    assert type(there) is kind
    assert problem_of(there).content() == problem_of(here).content()
    assert problem_of(there).headers() == problem_of(here).headers()


def test_a_quota_anywhere_says_when_to_come_back():
    problem = problem_of(error_of(fields_of(ExhaustedError("too many", "wait"))))
    assert (problem.status, problem.code) == (429, "too_many")
    assert problem.headers() == {"retry-after": "1"}
