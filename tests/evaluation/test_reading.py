"""Reading ahead: what is decoded while somebody else computes."""

from threading import Event, current_thread, main_thread

import pytest

from fewshot_ad.evaluation.reading import AHEAD, batched, read_ahead

PATIENCE = 20.0  # seconds, of which none pass unless a test fails


def test_the_next_items_are_read_while_the_first_is_computed_on() -> None:
    is_read = {number: Event() for number in range(40)}

    def read(number: int) -> int:
        assert current_thread() is not main_thread()
        is_read[number].set()
        return number

    items = read_ahead(range(40), read)
    assert next(items) == 0
    assert all(is_read[number].wait(PATIENCE) for number in range(AHEAD))
    assert not is_read[AHEAD + 2].is_set()
    assert list(items) == list(range(1, 40))


def test_an_item_that_cannot_be_read_is_told_in_its_turn() -> None:
    def read(number: int) -> int:
        if number == 3:
            raise OSError("torn")
        return number

    found: list[int] = []
    with pytest.raises(OSError, match="torn"):
        found.extend(read_ahead(range(9), read))
    assert found == [0, 1, 2]


def test_batches_keep_the_order() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
