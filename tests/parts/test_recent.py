from fewshot_ad.parts.recent import Recent


def test_what_was_asked_for_last_stays() -> None:
    recent = Recent[bytes](3, len)
    for key in "abc":
        assert recent.keep(key, b"x") == b"x"
    assert recent.find("a") == b"x"
    recent.keep("d", b"y")
    assert recent.find("b") is None
    assert [recent.find(key) for key in "acd"] == [b"x", b"x", b"y"]


def test_one_that_is_too_large_takes_all_the_room_and_leaves_it() -> None:
    recent = Recent[bytes](3, len)
    recent.keep("small", b"x")
    recent.keep("large", b"xxxxx")
    assert recent.find("small") is None
    assert recent.find("large") == b"xxxxx"
    recent.keep("small", b"x")
    assert recent.find("large") is None
    assert recent.find("small") == b"x"
