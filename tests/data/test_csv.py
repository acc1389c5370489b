import numpy as np
import pytest
from PIL import Image

from fewshot_ad.api import Dataset, FewShotError, Sample
from fewshot_ad.data import load_dataset
from fewshot_ad.data.audit import audit

HEADER = "image,class,split,label,mask"
LINES = (
    "a/10.png,nut,train,normal,",
    "a/9.png,nut,train,good,",
    "a/1.png,nut,test,0,",
    "a/2.png,nut,test,Scratch,m/2.png",
    "a/3.png,nut,test,anomaly,",
    "a/4.png,bolt,train,ok,",
    "a/5.png,bolt,val,normal,",
)


@pytest.fixture
def write(tmp_path):
    """Writes a table of these lines, and images of all that the fixture's own lines name."""
    for number, name in enumerate(("10", "9", "1", "2", "3", "4", "5")):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("L", (6, 4), 20 * number).save(tmp_path / f"a/{name}.png")
    (tmp_path / "m").mkdir()
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[0] = 1
    Image.fromarray(mask).save(tmp_path / "m/2.png")

    def table(*lines, header=HEADER, encoding="utf-8"):
        path = tmp_path / "parts.csv"
        path.write_text("\n".join((header, *lines)) + "\n", encoding=encoding)
        return f"csv:{path}"

    return table


def test_a_table_lists_samples(write):
    dataset = load_dataset(write(*LINES))
    assert isinstance(dataset, Dataset)
    assert dataset.name == "csv-parts"
    assert dataset.classes == ("bolt", "nut")
    assert [sample.path for sample in dataset.train("nut")] == ["a/9.png", "a/10.png"]
    assert dataset.test("nut") == (
        Sample("a/1.png", "nut", False),
        Sample("a/2.png", "nut", True, "m/2.png", "Scratch"),
        Sample("a/3.png", "nut", True, None, "anomaly"),
    )
    assert dataset.test("bolt") == ()
    normal, scratched, unmasked = (dataset.read_mask(sample) for sample in dataset.test("nut"))
    assert normal is not None
    assert scratched is not None
    assert not normal.any()
    assert scratched.any(axis=1).tolist() == [True, False, False, False]
    assert unmasked is None


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_of_spreadsheets_are_read(write, delimiter):
    spec = write(
        *(line.replace(",", delimiter).replace("a/", "a\\") for line in (*LINES, ",,,,")),
        header=HEADER.upper().replace(",", f" {delimiter}"),
        encoding="utf-8-sig",
    )
    assert load_dataset(spec).test("nut") == load_dataset(write(*LINES)).test("nut")


def test_classes_and_masks_may_be_missing(write):
    dataset = load_dataset(write("a/1.png,train,normal", header="image,split,label"))
    assert dataset.classes == ("parts",)
    assert len(dataset.train("parts")) == 1


def test_an_anomalous_image_in_train_is_left_out_and_told_of(write):
    dataset = load_dataset(write(*LINES, "m/2.png,bolt,train,bent,"))
    assert [sample.path for sample in dataset.train("bolt")] == ["a/4.png"]
    told = [f.details for f in audit(dataset).findings if "neither sample nor mask" in f.what]
    assert told == [("m/2.png",)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a/1.png,nut,Trian,normal,", "line 2: split is 'trian'; expected train or test"),
        ("a/1.png,nut,train,,", "line 2: no label is given"),
        (",nut,train,normal,", "line 2: no image is given"),
        ("a/1.png,,train,normal,", "line 2: no class is given"),
        ("a/1.png,nut,test,1,\na/1.png,nut,train,0,", "line 3: a/1.png is listed twice"),
        ("", "lists no images"),
    ],
)
def test_a_line_that_says_something_else_is_named(write, line, told):
    with pytest.raises(FewShotError, match=rf"parts\.csv.*{told}"):
        load_dataset(write(line))


@pytest.mark.parametrize("path", ["../secret.png", "/secret.png", "a/../../secret.png", "link.png"])
@pytest.mark.parametrize("column", ["image", "mask"])
def test_paths_do_not_leave_the_folder_of_the_table(write, tmp_path, path, column):
    Image.new("L", (6, 4)).save(tmp_path.parent / "secret.png")
    (tmp_path / "link.png").symlink_to(tmp_path.parent / "secret.png")
    image, mask = (path, "") if column == "image" else ("a/1.png", path)
    dataset = load_dataset(write(f"{image},nut,test,bent,{mask}"))
    with pytest.raises(FewShotError, match="leads out of"):
        dataset.test("nut")


def test_a_file_that_is_not_there_is_named(write):
    dataset = load_dataset(write("a/77.png,nut,train,normal,"))
    with pytest.raises(FewShotError, match=r"lists a/77\.png, and there is no such file"):
        dataset.train("nut")


@pytest.mark.parametrize(
    ("header", "line", "told"),
    [
        ("file,kind", "a/1.png,x", "has no column image or split or label"),
        ("", "", "has no column image"),
        (HEADER, "x" * 200_000, "cannot read the table"),
    ],
)
def test_another_table_is_told_what_is_missing(write, header, line, told):
    with pytest.raises(FewShotError, match=told) as caught:
        load_dataset(write(line, header=header))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("csv", "needs a table; give it as csv:TABLE.csv"),
        ("csv:{}", "is no file"),
        ("csv:{}/a/1.png", "write it as UTF-8"),
    ],
)
def test_what_is_no_table_is_told(write, tmp_path, spec, told):
    with pytest.raises(FewShotError, match=told):
        load_dataset(spec.format(tmp_path))
