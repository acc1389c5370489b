import json


def test_influence_tells_every_support_image_and_its_rivals(cli) -> None:
    small = (
        "influence", "--target-class", "screw", "--shots", 2, "--draws", 3, "--query-limit", 2,
        "--set", "preprocess.size=64", "--backbone", "random:tiny",
    )  # fmt: skip
    told = cli(*small)
    assert told.exit_code == 0
    assert told.stdout.count("screw/train") >= 2
    assert "3 drawn supports: mean" in told.stdout
    assert "chosen by k-centre:" in told.stdout
    facts = json.loads(cli(*small, "--json").stdout)
    assert len(facts["left_out"]) == len(facts["support"]) == 2
    assert len(facts["left_out"][0]) == len(facts["query"]) == 4
    assert len(facts["drawn_i_auroc"]) == 3


def test_what_cannot_be_asked_is_refused(cli) -> None:
    result = cli("influence", "--target-class", "screw", "--method", "resad")
    assert result.exit_code == 2
    assert "give --checkpoint" in result.stderr
    result = cli("influence", "--target-class", "screw", "--shots", 1, "--query-limit", 1)
    assert result.exit_code == 2
    assert "--shots 2 or more" in result.stderr
