"""When a home that gave way to another machine is trusted again."""

from meshnode.core.feeds.clones import Clones
from meshnode.node.presence.yielding import LOOK_S, UNDISPUTED_S, trusted_once_undisputed


async def test_only_time_with_links_counts():
    clones = Clones(7)
    clones.gave_way = {1, 2}
    looks: list[bool] = []

    async def wait(seconds: float) -> None:
        assert seconds == LOOK_S
        assert clones.gave_way

    def is_linked() -> bool:
        looks.append(len(looks) % 2 == 1)
        return looks[-1]

    await trusted_once_undisputed(clones, is_linked, wait)
    assert not clones.gave_way
    assert sum(looks) * LOOK_S == UNDISPUTED_S
    assert len(looks) == 2 * sum(looks)
