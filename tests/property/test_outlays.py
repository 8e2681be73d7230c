"""What is spent under budgets: kept up row by row, it is what adding everything up would give."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from viewing import IDS, OnePrice, Viewer

from meshnode.app.budgets.outlays import Outlays
from meshnode.core.control.settings import Terms
from meshnode.core.ledger.budgets import Spent, window_of
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey, slot_number
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row

NOW_S = 1_790_000_000
BUDGETS = {
    bytes([number]): (terms, window_of(terms.per, NOW_S))
    for number, terms in enumerate(
        [
            Terms(1, "tokens", "hour", "kill"),
            Terms(1, "nusd", "day", "kill", owner="olga"),
            Terms(1, "nusd", "month", "kill", project="p"),
            Terms(1, "tokens", "day", "kill", owner="olga", agent="x"),
        ]
    )
}
text = st.sampled_from(["", "olga", "otto"])
row = st.tuples(
    st.integers(0, 3),
    st.builds(
        SlotKey,
        st.sampled_from("abc"),
        st.sampled_from(["m", "free"]),
        st.just("standard"),
        st.sampled_from([slot_number(NOW_S) - back for back in (0, 1, 2, 40, 700, 2000)]),
    ),
    st.none()
    | st.builds(
        lambda tokens, owner, agent, project: Slot(1, Buckets(tokens), agent, owner, project),
        st.integers(0, 10**6),
        text,
        st.sampled_from(["", "x"]),
        st.sampled_from(["", "p"]),
    ),
)
step = row | st.sampled_from(["settle", *BUDGETS, "none"]) | st.integers(0, 3)
step |= st.tuples(st.just("drop"), st.sampled_from([*BUDGETS]))


def added_up(rows, terms, window) -> Spent:
    tokens = nusd = 0
    unpriced: Counter[str] = Counter()
    for (_, key), slot in rows.items():
        whose = (terms.owner in {"", slot.owner}, terms.agent in {"", slot.agent})
        if not all(whose) or terms.project not in {"", slot.project}:
            continue
        if window.start_s <= key.start_s < window.end_s:
            tokens += slot.usage.total
            nusd += slot.usage.total if key.model == "m" and terms.unit == "nusd" else 0
            if key.model == "free" and terms.unit == "nusd":
                unpriced[key.model] += slot.usage.total
    return Spent(tokens, nusd, {model: n for model, n in unpriced.items() if n})


@settings(max_examples=60)
@given(st.lists(step, max_size=30))
def test_sums_are_those_of_all_rows_whatever_changes_when(steps):
    viewer = Viewer()
    outlays = Outlays(viewer.mesh.tables, OnePrice())
    rows, asked = {}, {}
    for one in steps:
        match one:
            case (number, key, slot):
                place = key_to_row(key)
                viewer.put(number, LEDGER, place, None if slot is None else slot_to_row(slot))
                rows.pop((number, key), None)
                rows |= {} if slot is None else {(number, key): slot}
                outlays.touch(IDS[number], place)
            case "settle":
                outlays.settle()
            case "none":
                asked = {}
                outlays.ask(asked)
            case ("drop", name):
                asked = {one: budget for one, budget in asked.items() if one != name}
                outlays.ask(asked)
            case int():
                outlays.touch_all(IDS[one])
            case _:
                asked = asked | {one: BUDGETS[one]}
                outlays.ask(asked)
    outlays.settle()
    while outlays.busy:
        outlays.settle()
    assert {one: outlays.spent(one) for one in asked} == {
        one: added_up(rows, *BUDGETS[one]) for one in asked
    }
