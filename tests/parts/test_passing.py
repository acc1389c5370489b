import threading

import pytest

from fewshot_ad.parts.passing import is_passing_once, passing_once


def test_images_pass_once_while_somebody_says_so() -> None:
    assert not is_passing_once()
    with passing_once():
        with passing_once():
            assert is_passing_once()
        assert is_passing_once()
    assert not is_passing_once()


def test_an_error_ends_it() -> None:
    with pytest.raises(ValueError, match="no photo"), passing_once():
        raise ValueError("no photo")
    assert not is_passing_once()


def test_another_thread_goes_on_remembering() -> None:
    told: list[bool] = []
    with passing_once():
        thread = threading.Thread(target=lambda: told.append(is_passing_once()))
        thread.start()
        thread.join()
    assert told == [False]
