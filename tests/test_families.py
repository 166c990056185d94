"""Commands on independent, adapted and composed models."""

import csv
import functools
import json

import command_session
import pytest
import toy

# The tests in `models`, `training` and `evaluation` call the same functions and are not
# slow.
pytestmark = pytest.mark.slow

# The implementation does not matter here; `test_commands.py` runs compiled commands.
session = functools.partial(command_session.session, execution="eager")
# As few operations as possible, because several models are trained.
NETWORK = ("--adapter=none", "--pools=1,0,1", "--base_channels=2")
SHORT = ("--steps_per_epoch=2", "--max_epochs=1", "--validate_every_epochs=0")
ONE, TWO = toy.ONE.name, toy.TWO.name


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def trained(work, tiny_data):
    """`parent`, a model of one domain, and `each`, an independent model per domain."""
    data = f"--data_dir={tiny_data.data_dir}"
    common = (data, *NETWORK, *SHORT, "--distribution=none")
    return session(
        "u2net_tf.train",
        {
            "parent": (*common, f"--domains={ONE}", f"--model_dir={work / 'parent'}"),
            "each": (*common, "--independent", f"--model_dir={work / 'each'}"),
            "repeated": (f"--flagfile={work / 'each' / TWO / 'flags.txt'}",),
        },
    )


@pytest.fixture(scope="module")
def adapted(work, tiny_data, trained):
    """`adapted`: the parent with the second domain added."""
    common = (f"--data_dir={tiny_data.data_dir}", *SHORT, "--distribution=none")
    start = (*common, f"--from={work / 'parent'}", f"--domain={TWO}")
    return session(
        "u2net_tf.adapt",
        {
            "first": (*start, f"--model_dir={work / 'adapted'}", f"--init={ONE}"),
            "again": (*start, f"--model_dir={work / 'adapted'}", f"--init={ONE}"),
            "repeated": (f"--flagfile={work / 'adapted' / 'flags.txt'}",),
            "no init": (*start, f"--model_dir={work / 'no'}", "--init=none"),
            "no parent": (
                *common,
                f"--from={work / 'no'}",
                f"--domain={TWO}",
                f"--model_dir={work / 'no2'}",
            ),
        },
    )


@pytest.fixture(scope="module")
def composed(work, adapted):
    """`second`: the adapted model without its first domain; `both`: merged again."""
    models = f"--models={work / 'adapted'}"
    return session(
        "u2net_tf.compose",
        {
            "second": (models, f"--remove={ONE}", f"--model_dir={work / 'second'}"),
            "both": (
                f"--models={work / 'second'},{work / 'parent'}",
                f"--model_dir={work / 'both'}",
            ),
            "again": (models, f"--model_dir={work / 'both'}"),
            "none": (models, "--remove=Task99", f"--model_dir={work / 'no'}"),
        },
    )


@pytest.fixture(scope="module")
def evaluated(work, tiny_data, composed):
    output = f"--output_dir={work}/scores_"
    plan = f"--plan={tiny_data.data_dir / 'plan.json'}"
    return session(
        "u2net_tf.evaluate",
        {
            name: (f"--model_dir={work / name}", f"{output}{name}")
            for name in ("each", "parent")
        }
        | {
            # They do not list the cases of domains that they were not trained on.
            name: (f"--model_dir={work / name}", f"{output}{name}", plan)
            for name in ("adapted", "both")
        }
        | {
            "no plan": (f"--model_dir={work / 'both'}", f"{output}no_plan"),
            "one of each": (
                f"--model_dir={work / 'each'}",
                f"--domains={TWO}",
                f"{output}one",
                "--precision=mixed_bfloat16",
            ),
        },
    )


def scores(work, name):
    with (work / f"scores_{name}" / "dice.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


class TestIndependent:
    def test_every_domain_has_a_model(self, work, trained):
        assert trained["each"]["status"] == 0
        for name in (ONE, TWO):
            assert f"{work / 'each' / name}: 2 steps" in trained["each"]["stdout"]
        assert trained["repeated"]["stdout"].startswith(f"{work / 'each' / TWO}: 2 ")

    def test_are_scored_in_one_table(self, work, evaluated):
        assert evaluated["each"]["status"] == 0
        assert {row["domain"] for row in scores(work, "each")} == {ONE, TWO}
        summary = json.loads((work / "scores_each" / "summary.json").read_text())
        for name in (ONE, TWO):
            assert str(work / "each" / name / "checkpoints") in summary["checkpoint"]

    def test_one_of_them_is_scored(self, work, evaluated):
        assert evaluated["one of each"]["status"] == 0
        assert {row["domain"] for row in scores(work, "one")} == {TWO}

    def test_predicts_with_the_model_of_the_domain(self, work, tiny_data, trained):
        image = tiny_data.raw_dir / TWO / "imagesTr" / "two_2.nii.gz"
        common = (f"--input={image}", f"--model_dir={work / 'each'}")
        results = session(
            "u2net_tf.predict",
            {
                name: (*common, f"--domain={name}", f"--output={work / 'out' / name}")
                for name in (TWO, "Task99")
            },
        )
        assert results[TWO]["status"] == 0, results
        assert (work / "out" / TWO / "two_2.nii.gz").is_file()
        assert results["Task99"]["status"] == (
            f"error: --domain: expected one of {ONE}, {TWO}. Received: Task99"
        )


class TestAdapt:
    def test_prints_checksums_of_the_old_domains(self, work, adapted):
        assert adapted["first"]["status"] == 0
        lines = adapted["first"]["stdout"].splitlines()
        assert lines[0].startswith(f"{work / 'adapted'}: 2 steps")
        assert lines[1].split()[0] == "domain"
        name, before, after, verdict = lines[2].split()
        assert (name, verdict) == (ONE, "identical")
        assert before == after
        assert len(lines) == 4

    @pytest.mark.parametrize("name", ["again", "repeated"])
    def test_rerun_has_nothing_to_do(self, work, adapted, name):
        assert adapted[name]["status"] == 0
        first, other = adapted["first"]["stdout"], adapted[name]["stdout"]
        assert other.startswith(f"{work / 'adapted'}: 2 steps")
        assert other.splitlines()[1:] == first.splitlines()[1:]

    def test_predicts_both_and_the_old_one_as_before(self, work, evaluated):
        rows = scores(work, "adapted")
        assert {row["domain"] for row in rows} == {ONE, TWO}
        assert [row for row in rows if row["domain"] == ONE] == scores(work, "parent")

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("no init", "--init: expected random, mean or one of Task91_One. Rec"),
            ("no parent", "expected a model written by `python -m u2net_tf.train`"),
        ],
    )
    def test_wrong_input_is_one_message(self, work, adapted, name, words):
        assert words in adapted[name]["status"]
        assert not (work / "no").exists()
        assert not (work / "no2").exists()


class TestCompose:
    def test_reports_what_it_wrote_and_that_nothing_changed(self, work, composed):
        assert composed["both"]["status"] == 0
        *table, last = composed["both"]["stdout"].splitlines()
        assert [line.split()[0] for line in table[1:3]] == [TWO, ONE]
        assert all(line.endswith("identical") for line in table[1:3])
        assert last == f"2 domains in {work / 'both' / 'checkpoints' / 'step-0'}"

    def test_scores_are_unchanged(self, work, evaluated):
        before = sorted(map(str, scores(work, "adapted")))
        assert sorted(map(str, scores(work, "both"))) == before

    def test_scoring_needs_a_plan(self, work, evaluated):
        words = "--plan: expected the plan that lists the cases of Task92_Two, Task91_"
        assert words in evaluated["no plan"]["status"]
        assert not (work / "scores_no_plan").exists()

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("again", "expected a folder without a model. Rec"),
            ("none", "--remove: expected some of Task91_One, Task92_Two. Rec"),
        ],
    )
    def test_wrong_input_is_one_message(self, work, composed, name, words):
        assert words in composed[name]["status"]
        assert not (work / "no").exists()
