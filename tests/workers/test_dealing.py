"""Every item is dealt once, and again if its worker was lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from interp.workers.dealing import BATCH_SECONDS, Dealer


@given(
    count=st.integers(0, 200),
    paces=st.lists(st.floats(0, 2), max_size=50),
    lost=st.lists(st.booleans(), max_size=50),
)
def test_every_item_is_computed_once(count: int, paces: list[float], lost: list[bool]) -> None:
    dealer, computed = Dealer((number, None) for number in range(count)), []
    steps = 0
    while batch := dealer.deal():
        numbers = [number for number, _ in batch]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "neighbours"
        if steps < len(lost) and lost[steps]:
            dealer.take_back(batch)
        else:
            computed += numbers
            pace = paces[steps % len(paces)] if paces else 0.0
            dealer.took(len(batch), seconds=pace * len(batch))
        steps += 1
    assert sorted(computed) == list(range(count))


@given(pace=st.floats(1e-6, 10))
def test_a_batch_comes_to_take_half_a_second_and_never_much_more(pace: float) -> None:
    dealer = Dealer((number, None) for number in range(10**7))
    for _ in range(25):
        size = len(dealer.deal())
        dealer.took(size, seconds=size * pace)
        assert size == 1 or size * pace <= BATCH_SECONDS + 1e-6
    assert size == 1 or (size + 1) * pace > BATCH_SECONDS * 0.99
