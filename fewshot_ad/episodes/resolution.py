"""A manifest meets a dataset: its paths become samples, and what does not fit is named."""

from collections.abc import Iterable, Iterator, Sequence

from fewshot_ad.api import Dataset, FewShotError, Sample
from fewshot_ad.episodes.drawing import RULE, check_class, draw
from fewshot_ad.episodes.manifest import Manifest


def draw_manifest(dataset: Dataset, seeds: Sequence[int], max_shots: int, name: str) -> Manifest:
    """Draw a support of ``max_shots`` for every class and seed.

    Raises:
        FewShotError: fewer than one shot, or more than a class has train normals.
    """
    if max_shots < 1:
        raise FewShotError(f"max shots is {max_shots}: expected at least 1")
    support = {
        seed: {
            class_name: tuple(s.path for s in draw(dataset, class_name, seed, max_shots))
            for class_name in dataset.classes
        }
        for seed in seeds
    }
    return Manifest(name, dataset.name, max_shots, support, rule=RULE)


def listed_support(
    manifest: Manifest, dataset: Dataset, target_class: str, seed: int, shots: int
) -> tuple[Sample, ...]:
    """The first ``shots`` samples that a manifest lists for a class and seed.

    Raises:
        FewShotError: another dataset, an unknown seed or class, too short a list, a file that the
            dataset does not have, or a test image that is not marked as a leak.
    """
    _check_dataset(manifest, dataset)
    check_class(dataset, target_class)
    if shots == 0:
        return ()
    paths = manifest.paths(seed, target_class)
    if shots > len(paths):
        raise FewShotError(
            f"manifest {manifest.name} lists {len(paths)} images for class '{target_class}', "
            f"seed {seed}, and {shots} shots were asked for: ask for at most {len(paths)}"
        )
    faults = list(_faults(manifest, dataset, target_class, paths[:shots]))
    if faults:
        raise FewShotError(f"manifest {manifest.name}: {faults[0]}")
    samples = _samples(dataset, target_class)
    return tuple(samples[path] for path in paths[:shots])


def leak_warning(manifest: Manifest, target_class: str) -> str | None:
    """One line to print when the lists of a class are known to use test images, else None."""
    leaks = manifest.leaks.get(target_class, ())
    if not leaks:
        return None
    noun = "image" if len(leaks) == 1 else "images"
    return (
        f"manifest {manifest.name} shows {len(leaks)} test {noun} of '{target_class}' as support "
        f"({_few(leaks)}): left out of the query"
    )


def check_manifest(manifest: Manifest, dataset: Dataset) -> list[str]:
    """Every way in which a manifest does not fit a dataset, one line each; empty when all is well.

    Beyond the names it compares contents, so that a support image that lies among the test images
    under another name is found too.
    """
    _check_dataset(manifest, dataset)
    findings: list[str] = []
    for class_name in manifest.classes:
        if class_name not in dataset.classes:
            findings.append(f"class '{class_name}' is not in the dataset")
            continue
        seeds = [lists for lists in manifest.support.values() if class_name in lists]
        paths = tuple(dict.fromkeys(path for lists in seeds for path in lists[class_name]))
        findings += _faults(manifest, dataset, class_name, paths)
        findings += _twins(dataset, class_name, paths)
    return findings


def _check_dataset(manifest: Manifest, dataset: Dataset) -> None:
    if manifest.dataset != dataset.name:
        raise FewShotError(
            f"manifest {manifest.name} lists images of {manifest.dataset}, not of {dataset.name}: "
            f"choose --dataset {manifest.dataset} or another manifest"
        )


def _samples(dataset: Dataset, class_name: str) -> dict[str, Sample]:
    listed = (*dataset.test(class_name), *dataset.train(class_name))
    return {sample.path: sample for sample in listed}


def _faults(
    manifest: Manifest, dataset: Dataset, class_name: str, paths: Sequence[str]
) -> Iterator[str]:
    """What is wrong with the paths of one class, by name alone."""
    samples = _samples(dataset, class_name)
    allowed = {sample.path for sample in dataset.train(class_name)}
    allowed.update(manifest.leaks.get(class_name, ()))
    found = [samples[path] for path in paths if path in samples]
    missing = [path for path in paths if path not in samples]
    anomalous = [sample.path for sample in found if sample.is_anomalous]
    test = [s.path for s in found if not s.is_anomalous and s.path not in allowed]
    if missing:
        yield (
            f"{len(missing)} of the {len(paths)} images listed for class '{class_name}' are not in "
            f"{dataset.name} ({_few(missing)}): use the release and layout the manifest is made for"
        )
    if anomalous:
        yield f"class '{class_name}' lists anomalous images as normal support ({_few(anomalous)})"
    if test:
        yield (
            f"class '{class_name}' lists test images as support ({_few(test)}): "
            f"replace them, or mark them under 'leaks'"
        )


def _twins(dataset: Dataset, class_name: str, paths: Iterable[str]) -> Iterator[str]:
    """Support images of the train split whose content is that of a test image."""
    test = {dataset.digest(sample): sample.path for sample in dataset.test(class_name)}
    train = {sample.path: sample for sample in dataset.train(class_name)}
    for path in paths:
        twin = test.get(dataset.digest(train[path])) if path in train else None
        if twin:
            yield f"support image {path} has the content of test image {twin}"


def _few(paths: Sequence[str], most: int = 3) -> str:
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(paths[:most]) + more
