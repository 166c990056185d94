import dataclasses
import json

import pytest
from invented_surveys import make_case, make_domain, make_faulty, plan_one

from data_prep.config import SplitConfig
from data_prep.plan import draw_split, split_file
from u2net_tf.case_groups import group_cases
from u2net_tf.errors import InputError


def draw(num_cases=10, **changes):
    settings = {
        "domain": "A",
        "test_fraction": 0.2,
        "validation_fraction": 0.0,
        "seed": 0,
        **changes,
    }
    names = [f"patient{i // 2}_frame{i % 2}" for i in range(num_cases)]
    return draw_split.draw_split(names, **settings)


class TestDrawnSplit:
    def test_never_changes(self):
        # Experiments depend on it.
        assert draw().test == ("patient1_frame1", "patient3_frame0")

    def test_depends_on_seed_and_domain(self):
        drawn = {draw(100, seed=seed, domain=d).test for seed in (0, 1) for d in "AB"}
        assert len(drawn) == 4

    def test_is_stable_when_cases_are_added(self):
        more = draw(20, test_fraction=0.5).test
        assert len(set(draw().test) & set(more)) == 2

    @pytest.mark.parametrize(
        ("num_cases", "fractions", "sizes"),
        [
            (208, (0.2, 0.0), (166, 0, 42)),
            (10, (0.2, 0.25), (6, 2, 2)),
            (10, (0.0, 0.0), (10, 0, 0)),
            (10, (0.99, 0.99), (1, 0, 9)),
            (3, (0.2, 0.1), (1, 1, 1)),
            (2, (0.2, 0.1), (1, 0, 1)),
            (1, (0.2, 0.1), (1, 0, 0)),
        ],
    )
    def test_sizes(self, num_cases, fractions, sizes):
        test, validation = fractions
        split = draw(num_cases, test_fraction=test, validation_fraction=validation)
        parts = (split.train, split.validation, split.test)
        assert tuple(map(len, parts)) == sizes
        assert len({case for part in parts for case in part}) == num_cases
        for part in parts:
            assert list(part) == sorted(part)

    def test_reports_an_empty_test_split(self):
        assert draw(1).notes == ("too few cases for a test split",)
        assert draw(1, test_fraction=0).notes == ()
        notes = draw(60, split_by="(p)atient").notes
        assert notes == ("too few groups of cases for a test split",)

    def test_split_by_keeps_patients_together(self):
        split = draw(60, split_by=r"(patient\d+)_", validation_fraction=0.1)
        patients = [
            {case.split("_")[0] for case in part}
            for part in (split.train, split.validation, split.test)
        ]
        assert [len(part) for part in patients] == [22, 2, 6]
        assert len(set.union(*patients)) == 30
        assert len(split.test) == 12

    def test_validation_is_taken_from_the_training_cases(self):
        assert draw(validation_fraction=0.5).test == draw().test

    def test_flags_are_passed_on(self, plan):
        sizes = {"test_fraction": 0.4, "validation_fraction": 0.5}
        (domain,) = plan(**sizes, split_by=r"(patient\d)_").domains
        assert len(domain.test) == 4
        assert len({case[:8] for case in domain.test}) == 2
        # One and a half of three patients, rounded up.
        assert len(domain.validation) == 4
        assert len(domain.train) == 2
        (other,) = plan(**sizes, seed=3, overwrite=True).domains
        assert other.test != domain.test
        assert plan(**sizes, seed=3, overwrite=True).seed == 3

    def test_domain_that_does_not_match_is_split_by_case(self):
        cases = tuple(make_case("Plain", f"c{i}") for i in range(10))
        plain = dataclasses.replace(make_domain("Plain"), cases=cases)
        domain, notes = plan_one(plain, split_by=r"(patient\d+)_")
        assert len(domain.test) == 2
        assert "Plain: `split_by`=(patient\\d+)_ matches no case" in notes

    @pytest.mark.parametrize(
        ("split_by", "message"),
        [
            (r"(patient[0-3])_", "does not match 'patient4_frame0'"),
            (r"patient\d", "one capturing group. Received: 0 groups"),
            (r"(p)(a)", "one capturing group. Received: 2 groups"),
            ("(", "expected a regular expression"),
        ],
    )
    def test_bad_pattern_is_reported(self, split_by, message):
        with pytest.raises(InputError, match="`split_by`") as error:
            draw(split_by=split_by)
        assert message in str(error.value)

    @pytest.mark.parametrize("flag", ["test_fraction", "validation_fraction"])
    @pytest.mark.parametrize("value", [-0.1, 1.0])
    def test_bad_fraction_is_reported(self, flag, value):
        with pytest.raises(ValueError, match=rf"(?s){flag}.*input_value={value}"):
            SplitConfig(**{flag: value})


class TestFolds:
    def test_divide_the_training_cases(self):
        split = draw(23, num_folds=5)
        assert split.test == draw(23).test
        assert (split.train, split.validation) == ((), ())
        assert [len(fold) for fold in split.folds] == [4, 4, 4, 3, 3]
        every = [case for fold in split.folds for case in fold]
        assert sorted(every) == sorted(draw(23).train)
        assert all(list(fold) == sorted(fold) for fold in split.folds)

    def test_keep_patients_together(self):
        split = draw(40, num_folds=3, split_by=r"(patient\d+)_")
        patients = [{case.split("_")[0] for case in fold} for fold in split.folds]
        assert len(set.union(*patients)) == sum(map(len, patients)) == 16

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_folds": 1}, "`num_folds`: expected at least 2"),
            ({"num_folds": 9}, "`num_folds`: expected at most 8, .* of A. Received: 9"),
            ({"num_folds": 2, "validation_fraction": 0.1}, "no `validation_fraction`"),
        ],
    )
    def test_invalid_settings(self, changes, message):
        with pytest.raises(InputError, match=message):
            draw(**changes)

    def test_flags_are_passed_on(self, plan):
        (domain,) = plan(num_folds=3).domains
        assert len(domain.folds) == 3
        assert (domain.train, domain.validation) == ((), ())
        assert "8 in 3 folds" in plan.done.stdout

    def test_postprocessing_is_not_chosen_from_the_folds(self):
        domain, notes = plan_one(num_folds=3)
        assert [label.keep_components for label in domain.labels] == [0, 0, 0]
        assert (
            "predictions keep all components of each class, since every case" in notes
        )
        assert any(label.keep_components for label in plan_one()[0].labels)
        domain, notes = plan_one(num_folds=3, keep_components=2)
        assert domain.labels[1].keep_components == 2
        assert "keep all" not in notes


NAMES = [f"patient{i // 2}_frame{i % 2}" for i in range(10)]
ALL_FOLDS = {
    "Task99_Knee": {
        name: {"train": [n for n in NAMES if n not in val], "val": val}
        for name, val in (("fold0", NAMES[:4]), ("b", NAMES[4:7]), ("c", NAMES[7:]))
    }
}


def move(fold, name):
    fold["train"].remove(name)
    fold["val"].append(name)


PUBLISHED = {
    "Task99_Knee": {
        "fold0": {
            "train": [f"{name}.nii.gz" for name in NAMES[:7]],
            "val": [*(f"{name}.nrrd" for name in NAMES[7:9]), f"{NAMES[9]}.MHA"],
        },
        "fold1": {"train": NAMES[5:], "val": NAMES[:5]},
    },
    "Task98_NotHere": {"fold0": {"train": ["x"], "val": []}},
}
LISTS = {
    "Task99_Knee": {"train": NAMES[:6], "validation": NAMES[6:8], "test": NAMES[8:]}
}


@pytest.fixture
def write_splits(tmp_path):
    def write(content):
        path = tmp_path / "splits.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text)
        return path

    return write


class TestListedSplit:
    def test_lists(self, plan, write_splits):
        (domain,) = plan(splits_file=write_splits(LISTS)).domains
        assert domain.train == tuple(NAMES[:6])
        assert domain.validation == tuple(NAMES[6:8])
        assert domain.test == tuple(NAMES[8:])

    @pytest.mark.parametrize(
        ("fold", "num_train"), [(None, 7), ("fold0", 7), ("fold1", 5)]
    )
    def test_folds(self, write_splits, fold, num_train):
        path = write_splits(PUBLISHED)
        listed = split_file.read_splits(path, ["Task99_Knee"], fold=fold)
        domain, _ = plan_one(splits=listed)
        assert len(domain.train) == num_train
        assert domain.validation == ()
        assert set(domain.test) == set(NAMES) - set(domain.train)

    def test_flags_are_passed_on(self, plan, write_splits):
        path = write_splits(PUBLISHED)
        (domain,) = plan(splits_file=path, fold="fold1").domains
        assert domain.train == tuple(NAMES[5:])

    def test_all_folds(self, plan, write_splits):
        (domain,) = plan(splits_file=write_splits(ALL_FOLDS), fold="all").domains
        assert domain.folds == tuple(map(tuple, (NAMES[:4], NAMES[4:7], NAMES[7:])))
        assert domain.groups.keys() == {"fold0", "fold1", "fold2", "test"}
        assert (domain.train, domain.validation, domain.test) == ((), (), ())

    def test_all_folds_are_in_numerical_order(self, write_splits):
        """The names in the file are in lexical order, with fold10 before fold2."""
        parts = {f"fold{i}": [name] for i, name in enumerate(NAMES + ["x"])}
        content = {
            name: {"train": [n for n in [*NAMES, "x"] if n not in val], "val": val}
            for name, val in sorted(parts.items())
        }
        path = write_splits({"A": content})
        split = split_file.read_splits(path, ["A"], fold="all")["A"]
        assert split.folds == tuple((name,) for name in [*NAMES, "x"])
        assert "2 = fold2, 3 = fold3" in split.notes[0]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda folds: move(folds["b"], NAMES[0]), "of one fold. Received"),
            (
                lambda folds: folds["b"]["train"].pop(),
                "b: expected the validation cases of all",
            ),
            (
                lambda folds: [folds.pop("b"), folds.pop("c")],
                "expected two or more",
            ),
            (lambda folds: folds["c"].pop("val"), "c: expected .*'train', 'val'"),
        ],
    )
    def test_all_folds_that_contradict_each_other(self, write_splits, change, message):
        content = json.loads(json.dumps(ALL_FOLDS))
        change(content["Task99_Knee"])
        path = write_splits(content)
        with pytest.raises(InputError, match=f"Task99_Knee.*{message}"):
            split_file.read_splits(path, ["Task99_Knee"], fold="all")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[" * 100_000, "expected JSON"),
            ('{"A": ' + "9" * 5000 + "}", "expected JSON"),
            ('{"A": {"train": ["a"], "train": ["b"], "test": []}}', "it twice"),
        ],
    )
    def test_invalid_json_and_duplicate_keys(self, write_splits, text, message):
        with pytest.raises(InputError, match=f"splits.json: .*{message}"):
            split_file.read_splits(write_splits(text), ["A"], fold=None)

    def test_excluded_cases_are_removed_from_folds(self, write_splits):
        facts, name = make_faulty("image")
        path = write_splits(ALL_FOLDS)
        listed = split_file.read_splits(path, ["Task99_Knee"], fold="all")
        domain, _ = plan_one(facts, splits=listed, exclude_faulty=True)
        assert name in NAMES[:4]
        assert [len(fold) for fold in domain.folds] == [3, 3, 3]

    def test_excluded_cases_are_removed(self, write_splits):
        facts, name = make_faulty("image")
        listed = split_file.read_splits(write_splits(LISTS), ["Task99_Knee"], fold=None)
        domain, _ = plan_one(facts, splits=listed, exclude_faulty=True)
        assert domain.train == tuple(n for n in NAMES[:6] if n != name)

    @pytest.mark.parametrize(
        ("content", "fold", "message"),
        [
            ("{", None, "expected JSON"),
            ("[]", None, "expected an object"),
            ({"Other": {"train": ["x"], "test": []}}, None, "lists for Task99_Knee"),
            ({"Task99_Knee": []}, None, "expected an object"),
            ({"Task99_Knee": {"train": NAMES}}, None, "expected ['test', 'train']"),
            ({"Task99_Knee": {"train": NAMES, "test": 1}}, None, "a list of names"),
            ({"Task99_Knee": {"train": [], "test": NAMES}}, None, "at least one case"),
            (
                {"Task99_Knee": {"train": NAMES, "test": NAMES[:1]}},
                None,
                "Received: several times: patient0_frame0",
            ),
            (
                {"Task99_Knee": {"train": NAMES, "test": ["stranger.nii.gz"]}},
                None,
                "Received: stranger",
            ),
            (
                {"Task99_Knee": {"train": NAMES[1:], "test": []}},
                None,
                "Received: no list with patient0_frame0",
            ),
            (PUBLISHED, "fold7", "expected 'fold7' among the folds"),
            (
                {"Task99_Knee": {"fold0": {"train": NAMES}}},
                None,
                "fold0: expected ['train', 'val']",
            ),
            (LISTS, "fold0", "folds for `fold`=fold0"),
        ],
    )
    def test_bad_lists_are_reported(self, write_splits, content, fold, message):
        path = write_splits(content)

        def plan():
            listed = split_file.read_splits(path, ["Task99_Knee"], fold=fold)
            plan_one(splits=listed, splits_file=str(path))

        with pytest.raises(InputError, match="splits.json") as error:
            plan()
        assert message in str(error.value)

    NUMBERED = [
        {"train": NAMES[:4] + NAMES[7:], "val": NAMES[4:7]},
        {"train": NAMES[4:], "val": NAMES[:4]},
        {"train": NAMES[:7], "val": NAMES[7:]},
    ]

    @pytest.mark.parametrize("nested", [False, True])
    def test_folds_of_nnu_net(self, write_splits, nested):
        content = {"Task99_Knee": self.NUMBERED} if nested else self.NUMBERED
        path = write_splits(content)
        for fold in (None, "all"):
            listed = split_file.read_splits(path, ["Task99_Knee"], fold=fold)
            domain, _ = plan_one(splits=listed)
            assert domain.folds == tuple(map(tuple, (NAMES[4:7], NAMES[:4], NAMES[7:])))
            assert domain.groups["test"] == ()
        listed = split_file.read_splits(path, ["Task99_Knee"], fold="1")
        domain, _ = plan_one(splits=listed)
        assert domain.train == tuple(NAMES[4:])
        assert domain.validation == tuple(NAMES[:4])
        assert domain.test == ()

    @pytest.mark.parametrize(
        ("content", "domains", "fold", "message"),
        [
            (NUMBERED, ["A", "B"], None, "of A, B. Received: a list of folds, which"),
            (NUMBERED, ["A"], "3", "A: expected the fold '3' .*: folds from 0 to 2"),
            (NUMBERED, ["A"], "fold1", "A: expected the fold 'fold1'"),
            (NUMBERED[:1], ["A"], None, "two or more .*only fold '0'.*`fold`=0"),
            ({"A": []}, ["A"], "0", r"A: expected an object or folds. Received: \[\]"),
            ([3, 4], ["A"], None, "A: 0: expected .*'train', 'val'"),
            ([NUMBERED[0], NUMBERED[0]], ["A"], None, "validation case of one fold"),
        ],
    )
    def test_folds_of_nnu_net_that_cannot_be_used(
        self, write_splits, content, domains, fold, message
    ):
        with pytest.raises(InputError, match=f"splits.json.*{message}"):
            split_file.read_splits(write_splits(content), domains, fold=fold)

    def test_names_with_backslashes(self, write_splits):
        lists = {"train": [".\\imagesTr\\a.nii.gz"], "test": ["imagesTr/b.nii"]}
        path = write_splits({"A": lists})
        split = split_file.read_splits(path, ["A"], fold=None)["A"]
        assert (split.train, split.test) == (("a",), ("b",))

    @pytest.mark.parametrize(
        "flags",
        [
            {"seed": 1},
            {"test_fraction": 0.2},
            {"validation_fraction": 0},
            {"split_by": "(x)"},
        ],
    )
    def test_flags_without_effect_on_lists_are_errors(self, fail, write_splits, flags):
        (name,) = flags
        error = fail(splits_file=write_splits(LISTS), **flags)
        assert f"--{name}: expected no value with --splits_file" in error

    def test_missing_file_and_fold_alone(self, fail, tmp_path):
        assert "Received: no such file" in fail(splits_file=tmp_path / "nothing.json")
        assert "expected --splits_file as well" in fail(fold="fold0")


class TestPatientsInNames:
    @pytest.mark.parametrize(
        ("cases", "expression"),
        [
            (["patient001_frame01", "patient001_frame12"], r"(patient\d+)"),
            (["Patient_1_ED", "Patient_1_ES", "Patient_2_ED"], r"(Patient_\d+)"),
            (["sub-A1_ses-1", "sub-A1_ses-2", "sub-B_ses-1"], "(sub-[0-9a-zA-Z]+)"),
            (["x_subject 3 a", "x_subject 3 b"], r"(subject \d+)"),
            (["pat7-1", "pat7-2", "other"], r"(pat\d+|^(?!.*pat\d+).*)"),
            (["patient1_a", "patient2_a"], ""),
            (["hepat1_a", "hepat1_b"], ""),
            (["BRATS_001", "BRATS_002"], ""),
            ([], ""),
        ],
    )
    def test_suggest_an_expression(self, cases, expression):
        assert draw_split.suggest_split_by(cases) == expression
        if expression:
            groups, notes = group_cases(
                cases, expression, setting="split_by", domain="A"
            )
            assert len(groups) < len(cases)
            assert notes == []

    def test_are_reported_unless_they_are_kept_together(self):
        _, notes = plan_one()
        assert (
            r"`split_by`='(patient\d+)' keeps the cases of a patient together" in notes
        )
        for split_by, suggested in ((r"(patient\d+)", False), ("frame(.)", True)):
            _, notes = plan_one(split_by=split_by)
            assert ("keeps the cases of a patient together" in notes) == suggested

    def test_are_reported_if_lists_split_them(self, write_splits):
        def notes(num_train):
            lists = {"train": NAMES[:num_train], "test": NAMES[num_train:]}
            path = write_splits({"Task99_Knee": lists})
            listed = split_file.read_splits(path, ["Task99_Knee"], fold=None)
            return plan_one(splits=listed)[1]

        assert "the lists have cases of patient2 in different splits" in notes(5)
        assert "patient" not in notes(6)
