import warnings

import pytest
from painted import Painted

from fewshot_ad.api import Episode, FewShotError
from fewshot_ad.evaluation.known import known_images
from fewshot_ad.evaluation.leaks import check_leaks, image_digests, warn_of_repeats


def trial(dataset, support=(0, 1)):
    train = dataset.train("plate")
    return Episode(
        dataset.name, "plate", 0, tuple(train[i] for i in support), dataset.test("plate")
    )


def digests(dataset, episode):
    return image_digests(dataset, episode.support + episode.query)


def test_a_clean_episode_passes():
    dataset = Painted()
    known = known_images([(dataset, ("disc", "rod"))])
    check_leaks(trial(dataset), digests(dataset, trial(dataset)), known)


def test_the_target_among_the_known_is_named():
    dataset = Painted()
    known = known_images([(dataset, ("disc", "plate"))])
    with pytest.raises(FewShotError, match="painted/plate is among the 2 known classes"):
        check_leaks(trial(dataset), digests(dataset, trial(dataset)), known)


def test_a_class_of_the_same_name_in_another_dataset_is_no_leak():
    dataset = Painted()
    other = Painted(name="other")
    other.copies = {s.path: f"other {s.path}" for s in other.train("plate") + other.test("plate")}
    check_leaks(
        trial(dataset), digests(dataset, trial(dataset)), known_images([(other, ("plate",))])
    )


@pytest.mark.parametrize(
    ("copied", "found"),
    [
        ("plate/train/1", "1 of 2 support images of painted/plate .* plate/train/1;"),
        ("plate/bad/2", "1 of 8 query images of painted/plate .* plate/bad/2;"),
    ],
)
def test_a_copy_among_the_known_is_found_by_content(copied, found):
    dataset = Painted()
    other = Painted(name="other")
    other.copies = {"disc/ok/0": copied}
    with pytest.raises(FewShotError, match=found):
        check_leaks(
            trial(dataset), digests(dataset, trial(dataset)), known_images([(other, ("disc",))])
        )


def test_many_copies_are_counted_and_few_named():
    dataset = Painted()
    known = known_images([(Painted(name="twin"), ("plate",))])
    with pytest.raises(FewShotError, match="2 of 2 support images"):
        check_leaks(trial(dataset), digests(dataset, trial(dataset)), known)
    with pytest.raises(FewShotError, match=r"8 of 8 query.*and 5 more"):
        check_leaks(trial(dataset, ()), digests(dataset, trial(dataset)), known)


def test_repeated_shots_are_warned_of():
    dataset = Painted()
    dataset.copies = {"plate/train/1": "plate/train/0"}
    with pytest.warns(UserWarning, match="2 of 3 support images have the content of another"):
        warn_of_repeats(trial(dataset, (0, 1, 2)), digests(dataset, trial(dataset, (0, 1, 2))))


def test_a_shot_that_is_judged_too_is_warned_of():
    dataset = Painted()
    dataset.copies = {"plate/ok/1": "plate/train/0"}
    with pytest.warns(UserWarning, match="1 of 2 support images are among the query.*train/0"):
        warn_of_repeats(trial(dataset), digests(dataset, trial(dataset)))


def test_nothing_is_said_without_repeats():
    dataset = Painted()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_repeats(trial(dataset), digests(dataset, trial(dataset)))
