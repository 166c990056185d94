import dataclasses
import json
import pathlib

import pytest
from invented_surveys import make_case, make_domain, make_faulty, plan_one

from data_prep.plan import label_classes
from data_prep.survey import survey_file
from u2net_tf.errors import InputError
from u2net_tf.plan.labels import Region
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.plan.preprocessing import Preprocessing

ROOT = pathlib.Path(__file__).parents[2]


class TestSettings:
    def test_defaults(self, run_plan, run_command, tmp_path):
        done = run_plan(run_command)
        assert done.stdout.splitlines()[-1].startswith("wrote ")
        (domain,) = load_plan(tmp_path / "plan.json").domains
        assert domain.name == "Task99_Knee"
        assert domain.raw_dir == "/raw/Task99_Knee"
        assert domain.modalities == ("MRI",)
        assert [label.values for label in domain.labels] == [(0,), (1,), (2,)]
        assert [label.keep_components for label in domain.labels] == [0, 1, 2]
        assert domain.spacing_mm == (3, 1, 1)
        # Cropped to rows 15 to 84.
        assert domain.median_shape == (20, 70, 80)
        assert domain.patch_size == (20, 80, 80)
        assert domain.pools == (2, 4, 4)
        assert domain.mirror_axes == ("x",)
        assert domain.preprocessing.margin_voxels == 5
        assert domain.preprocessing.clip_percentiles == (2, 98)
        assert domain.preprocessing.spacing_source == "pixdim"
        assert domain.preprocessing.unknown_labels == "fail"
        assert (len(domain.train), len(domain.validation), len(domain.test)) == (
            8,
            0,
            2,
        )

    def test_table_is_aligned(self, plan):
        plan(make_domain(), make_domain("Task04_Hippocampus"))
        lines = plan.done.stdout.splitlines()
        rows = [lines[0], *lines[2:4]]
        assert (
            len(
                {
                    row.rindex(end)
                    for row, end in zip(
                        rows, ("settings", "rule", "preset"), strict=True
                    )
                }
            )
            == 1
        )
        assert "20 × 80 × 80" in lines[2]
        assert "2,4,4" in lines[2]
        assert "40 × 56 × 40" in lines[3]

    def test_median_is_per_axis_over_the_cases(self):
        spacings = [(2, 1, 0.5), (4, 2, 1.5), (3, 9, 0.7)]
        cases = tuple(
            make_case("K", f"c{i}", spacing_mm=spacing)
            for i, spacing in enumerate(spacings)
        )
        domain, _ = plan_one(dataclasses.replace(make_domain("K"), cases=cases))
        assert domain.spacing_mm == (3, 2, 0.7)
        # 20·2/3, 20·4/3, 20 · 70·1/2, 70, 70·9/2 · 80·.5/.7, 80·1.5/.7, 80
        assert domain.median_shape == (20, 70, 80)

    def test_rounding_of_labels_is_taken_from_the_survey(self):
        for value in (False, True):
            domain, _ = plan_one(make_domain(round_labels=value))
            assert domain.preprocessing.round_labels == value

    def test_spacing_source_is_taken_from_the_survey(self):
        domain, _ = plan_one(make_domain(spacing_source="affine"))
        assert domain.preprocessing.spacing_source == "affine"

    def test_preprocessing_flags(self, plan):
        (domain,) = plan(
            margin_voxels=1, clip_percentiles="0.5,99.5", unknown_labels="background"
        ).domains
        assert domain.preprocessing.margin_voxels == 1
        assert domain.preprocessing.clip_percentiles == (0.5, 99.5)
        assert domain.preprocessing.unknown_labels == "background"
        assert domain.median_shape == (20, 62, 80)
        line = "preprocessing: margin_voxels=1; clip_percentiles=0.5,99.5"
        assert line in plan.done.stdout.splitlines()

    def test_preprocessing_is_that_of_the_paper_by_default(self, plan):
        (domain,) = plan().domains
        assert domain.preprocessing == Preprocessing()
        assert "preprocessing:" not in plan.done.stdout

    @pytest.mark.parametrize(
        ("flag", "value", "expected"),
        [
            ("intensity_floor", "-900", -900.0),
            ("intensity_floor", "0", 0.0),
            ("statistics_over", "positive", "positive"),
            ("size_rounding", "truncate", "truncate"),
        ],
    )
    def test_later_preprocessing_flags(self, plan, flag, value, expected):
        domains = plan(make_domain("A"), make_domain("B"), **{flag: value}).domains
        wanted = dataclasses.replace(Preprocessing(), **{flag: expected})
        assert [domain.preprocessing for domain in domains] == [wanted, wanted]
        assert f"\npreprocessing: {flag}={expected}\n" in plan.done.stdout

    def test_flagfile_of_the_published_code(self, plan):
        flagfile = "data_prep/flagfiles/upstream.flags"
        (domain,) = plan(flagfile=flagfile).domains
        assert domain.preprocessing == Preprocessing(
            margin_voxels=5,
            clip_percentiles=(2.0, 98.0),
            unknown_labels="background",
            intensity_floor=-1024.0,
            statistics_over="positive",
            size_rounding="truncate",
        )
        text = (ROOT / flagfile).read_text()
        assert "--flagfile=upstream" in text
        assert "u2net_tf/flagfiles/upstream.flags" in text

    @pytest.mark.parametrize(("rounding", "size"), [("nearest", 27), ("truncate", 26)])
    def test_size_rounding_applies_to_the_median_shape(self, rounding, size):
        # At the median of 3 mm they have 26.67, 10 and 66.67 slices.
        cases = tuple(
            make_case("K", f"c{i}", shape=(slices, 100, 80),
                      box_shape=(slices, 60, 80), spacing_mm=(spacing, 1, 1))
            for i, (slices, spacing) in enumerate([(40, 2), (10, 3), (50, 4)])
        )  # fmt: skip
        facts = dataclasses.replace(make_domain("K"), cases=cases)
        settings = Preprocessing(size_rounding=rounding)
        domain, _ = plan_one(facts, preprocessing=settings)
        assert domain.median_shape == (size, 70, 80)

    def test_sizes_at_microscopic_spacing_cannot_be_truncated(self):
        cases = (make_case("K", "c0", spacing_mm=(3e-4, 1e-4, 1e-4)),)
        facts = dataclasses.replace(make_domain("K"), cases=cases)
        with pytest.raises(InputError, match=r"c0\.nii\.gz: .*at least 0\.001 mm"):
            plan_one(facts, preprocessing=Preprocessing(size_rounding="truncate"))

    def test_duplicate_modalities_are_refused(self):
        with pytest.raises(InputError, match="Task99_Knee: .*several times: MRI"):
            plan_one(make_domain(modalities=("MRI", "MRI")))

    @pytest.mark.parametrize(
        ("flags", "axes"),
        [
            ({}, ()),
            ({"mirror_axes": "x,y"}, ("x", "y")),
            ({"mirror_axes": "none"}, ()),
        ],
    )
    def test_left_and_right_are_not_mirrored_by_default(self, plan, flags, axes):
        labels = {0: "background", 1: "left_lung", 2: "Right_lung"}
        (domain,) = plan(make_domain(labels=labels), **flags).domains
        assert domain.mirror_axes == axes

    def test_domains_flag_determines_the_order(self, plan):
        domains = [make_domain(name) for name in "ABC"]
        assert plan(*domains).names == ("A", "B", "C")
        assert plan(*domains, domains="C,A", overwrite=True).names == ("C", "A")

    def test_preset_and_rule(self, plan):
        spleen = make_domain("Task09_Spleen")
        (domain,) = plan(spleen).domains
        assert domain.patch_size == (96, 160, 128)
        assert domain.pools == (4, 5, 5)
        assert domain.batch_size == 2
        assert "longer than the median volume along z" in plan.done.stdout
        (domain,) = plan(spleen, preset="rule", overwrite=True).domains
        assert domain.patch_size == (20, 80, 80)

    def test_max_patch_voxels(self, plan):
        spleen = make_domain("Task09_Spleen")
        preset = 96 * 160 * 128
        (domain,) = plan(spleen, max_patch_voxels=preset).domains
        assert domain.patch_size == (96, 160, 128)
        (domain,) = plan(spleen, max_patch_voxels=preset - 1, overwrite=True).domains
        assert domain.patch_size == (20, 80, 80)
        assert "rule" in plan.done.stdout
        (domain,) = plan(spleen, max_patch_voxels=32**3, overwrite=True).domains
        assert domain.patch_size == (20, 40, 40)
        assert domain.pools == (2, 3, 3)

    @pytest.mark.parametrize("name", ["Task03_Liver", "Task07_Pancreas"])
    def test_preset_merges_the_tumour(self, name):
        labels = {0: "background", 1: "organ", 2: "cancer"}
        domain, _ = plan_one(make_domain(name, labels=labels))
        assert [label.values for label in domain.labels] == [(0,), (1, 2)]
        assert domain.labels[1].name == name[7:].lower()
        assert domain.labels[1].keep_components == 1
        domain, _ = plan_one(make_domain(name, labels=labels), use_presets=False)
        assert domain.num_classes == 3

    def test_preset_keeps_labels_that_are_already_merged(self):
        domain, _ = plan_one(make_domain("Task03_Liver", labels={0: "b", 1: "l"}))
        assert [label.name for label in domain.labels] == ["b", "l"]


class TestLabels:
    def test_merge(self, plan):
        labels = {0: "background", 1: "a", 2: "b", 3: "c"}
        (domain,) = plan(
            make_domain(labels=labels), merge_labels=["Task99_Knee:both=1+3"]
        ).domains
        assert [(lab.name, lab.values) for lab in domain.labels] == [
            ("background", (0,)),
            ("both", (1, 3)),
            ("b", (2,)),
        ]
        # The statistics of the parts do not apply to their union.
        assert domain.labels[1].keep_components == 0

    def test_merge_into_the_background(self):
        domain, _ = plan_one(merges={"Task99_Knee": {"rest": (0, 2)}})
        assert [label.values for label in domain.labels] == [(0, 2), (1,)]
        assert domain.labels[0].keep_components == 0

    def test_merge_overrides_that_of_the_preset(self):
        labels = {0: "background", 1: "liver", 2: "tumour"}
        domain, _ = plan_one(
            make_domain("Task03_Liver", labels=labels),
            merges={"Task03_Liver": {"other": (0, 2)}},
        )
        assert [label.values for label in domain.labels] == [(0, 2), (1,)]

    def test_regions(self, plan):
        domain = dataclasses.replace(make_domain(), regions={"all": (1, 2)})
        flags = {"regions": "Task99_Knee:both=1+2"}
        (planned,) = plan(domain, **flags).domains
        names = tuple(label.name for label in planned.labels[1:])
        assert planned.regions == (Region("all", names), Region("both", names))

    def test_a_region_has_whole_classes(self):
        labels = {0: "background", 1: "a", 2: "b", 3: "c"}
        domain, _ = plan_one(
            make_domain("K", labels=labels),
            merges={"K": {"ab": (1, 2)}},
            regions={"K": {"all": (1, 2, 3)}},
        )
        assert domain.regions == (Region("all", ("ab", "c")),)
        with pytest.raises(InputError) as caught:
            plan_one(
                make_domain("K", labels=labels),
                merges={"K": {"ab": (1, 2)}},
                regions={"K": {"bc": (2, 3)}},
            )
        assert str(caught.value) == (
            "`regions`=K:bc: expected all values of the class 'ab', 1+2, or none. "
            "Received: 2"
        )

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            ("K:all", "`regions`: expected DOMAIN:NAME=VALUE+VALUE"),
            ("K:a=1+2,K:b=2+3", "K:b=2+3'. Give `regions` again for each further one"),
            ("K:all=1+9", "`regions`=K:all: expected values of foreground classes: 1"),
            ("K:all=0+1", "Received: 0"),
            ("K:all=1+2 K:all=1+2", "expected 'all' of K once"),
            ("K:two=1+2", "`regions`=K:two: expected a name that no region in"),
        ],
    )
    def test_bad_regions_are_an_error(self, texts, message):
        facts = dataclasses.replace(make_domain("K"), regions={"two": (1, 2)})

        def make():
            regions = label_classes.parse_unions("regions", texts.split())
            plan_one(facts, regions=regions)

        with pytest.raises(InputError) as caught:
            make()
        assert message in str(caught.value)

    def test_unusable_regions_of_the_dataset_are_an_error(self):
        facts = dataclasses.replace(make_domain("K"), regions={"two": (1, 7)})
        with pytest.raises(InputError, match="K: region 'two': .*Received: 7"):
            plan_one(facts)

    def test_the_ignore_label_is_kept(self):
        domain, _ = plan_one(dataclasses.replace(make_domain("K"), ignore_label=9))
        assert domain.ignore_label == 9

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            ("K:knee", "expected DOMAIN:NAME=VALUE+VALUE"),
            ("K:knee=1", "expected DOMAIN:NAME=VALUE+VALUE"),
            ("K:knee=1+5", "expected values among 0, 1, 2. Received: 5"),
            ("K:knee=1+1", "expected each value once. Received: 1+1"),
            ("K:background=1+2", "distinct names. Received: several times: backgr"),
            ("K:all=0+1+2", "2 to 256 classes, including the background. Received: 1"),
            ("K:k=0+1 K:k=1+2", "once. Received: two entries"),
            ("K:k=0+1 K:l=1+2", "Received: 1 twice"),
        ],
    )
    def test_bad_merge_is_an_error(self, texts, message):
        def merge():
            merges = label_classes.parse_unions("merge_labels", texts.split())
            plan_one(make_domain("K"), merges=merges)

        with pytest.raises(InputError, match="`merge_labels`") as error:
            merge()
        assert message in str(error.value)

    def test_keep_components(self, plan):
        (domain,) = plan(keep_components="3").domains
        assert [label.keep_components for label in domain.labels] == [0, 3, 3]
        domain, _ = plan_one(keep_components=0)
        assert [label.keep_components for label in domain.labels] == [0, 0, 0]

    @pytest.mark.parametrize(
        ("shares", "kept"),
        [
            ([(1.0, 1.0), (0.98, 1.0)], 1),
            ([(1.0, 1.0), (0.97, 0.98)], 2),
            ([(1.0, 1.0), (0.5, 0.97)], 0),
            ([], 0),
        ],
    )
    def test_keep_components_auto_uses_the_mean(self, shares, kept):
        without = make_case("K", "without", component_shares={})
        cases = [
            make_case("K", f"c{i}", component_shares={"1": share})
            for i, share in enumerate(shares)
        ]
        facts = dataclasses.replace(make_domain("K"), cases=(without, *cases))
        domain, _ = plan_one(facts, test_fraction=0.0)
        assert domain.test == ()
        assert [label.keep_components for label in domain.labels] == [0, kept, 0]

    def test_keep_foreground_components(self, plan):
        (domain,) = plan(keep_foreground_components="3").domains
        assert domain.keep_foreground_components == 3
        (domain,) = plan(overwrite=True).domains
        assert domain.keep_foreground_components == 1

    @pytest.mark.parametrize(
        ("share", "changes", "kept"),
        [
            ((0.995, 1.0), {}, 1),
            ((0.6, 0.995), {}, 2),
            ((0.6, 0.9), {}, 0),
            # A single class; a label in the background; folds.
            ((0.995, 1.0), {"merges": {"K": {"both": [1, 2]}}}, 0),
            ((0.995, 1.0), {"merges": {"K": {"background": [0, 2]}}}, 0),
            ((0.995, 1.0), {"num_folds": 2}, 0),
            ((0.995, 1.0), {"keep_components": 0}, 0),
            ((0.995, 1.0), {"keep_components": 2}, 1),
        ],
    )
    def test_keep_foreground_components_auto(self, share, changes, kept):
        cases = tuple(
            make_case("K", f"c{i}", component_shares={"foreground": share})
            for i in range(4)
        )
        facts = dataclasses.replace(make_domain("K"), cases=cases)
        domain, _ = plan_one(facts, **changes)
        assert domain.keep_foreground_components == kept

    def test_keep_components_auto_needs_complete_annotation(self):
        facts = make_domain("K", ignore_label=9)
        sparse = {"label_voxels": {"1": 100, "9": 1}}
        cases = [dataclasses.replace(case, **sparse) for case in facts.cases]
        domain, _ = plan_one(dataclasses.replace(facts, cases=tuple(cases)))
        assert [label.keep_components for label in domain.labels] == [0, 0, 0]
        assert domain.keep_foreground_components == 0
        one = dataclasses.replace(facts.cases[0], label_voxels={"1": 100})
        facts = dataclasses.replace(facts, cases=(one, *cases[1:]))
        domain, _ = plan_one(facts, test_fraction=0.0)
        assert [label.keep_components for label in domain.labels] == [0, 1, 2]
        assert domain.keep_foreground_components == 1

    def test_keep_components_auto_ignores_test_cases(self):
        domain, _ = plan_one()
        facts = make_domain()
        cases = tuple(
            dataclasses.replace(case, component_shares={"1": (0.1, 0.2)})
            if case.case in domain.test
            else case
            for case in facts.cases
        )
        again, _ = plan_one(dataclasses.replace(facts, cases=cases))
        assert again.test == domain.test
        assert again.labels == domain.labels


class TestFaultyCases:
    @pytest.mark.parametrize(
        "kind", ["image", "label", "geometry", "same image", "unknown label"]
    )
    def test_unusable_case_is_an_error_unless_excluded(self, kind):
        facts, name = make_faulty(kind)
        with pytest.raises(InputError, match="`exclude_faulty`") as error:
            plan_one(facts)
        assert f"{name}: /raw/bad.nii.gz: expected this, found that" in str(error.value)
        domain, notes = plan_one(facts, exclude_faulty=True)
        every = domain.train + domain.test
        assert len(every) == 9
        assert name not in every
        assert f"left out {name}: /raw/bad.nii.gz" in notes

    def test_flags_are_passed_on(self, plan, fail):
        facts, name = make_faulty("unknown label")
        assert name in fail(facts)
        (domain,) = plan(facts, exclude_faulty=True).domains
        assert len(domain.train + domain.test) == 9
        assert f"left out {name}" in plan.done.stdout
        (domain,) = plan(facts, unknown_labels="background", overwrite=True).domains
        assert len(domain.train + domain.test) == 10

    @pytest.mark.parametrize("kind", ["empty label", "same name"])
    def test_usable_case_is_kept(self, kind):
        domain, _ = plan_one(make_faulty(kind)[0])
        assert len(domain.train + domain.test) == 10

    def test_a_larger_margin_may_contain_the_foreground(self):
        facts, _ = make_faulty("cropped label")
        with pytest.raises(InputError, match="1 of 10 with faults"):
            plan_one(facts)
        domain, _ = plan_one(facts, preprocessing=Preprocessing(margin_voxels=6))
        assert len(domain.train + domain.test) == 10

    def test_warnings_exclude_nothing(self):
        cases = tuple(
            dataclasses.replace(case, warnings=("odd",)) for case in make_domain().cases
        )
        domain, _ = plan_one(dataclasses.replace(make_domain(), cases=cases))
        assert len(domain.train + domain.test) == 10

    def test_a_case_that_a_conversion_would_refuse(self):
        # A thousand times the voxel size.
        facts = make_domain()
        bad = dataclasses.replace(facts.cases[3], spacing_mm=(3000.0, 1000.0, 1000.0))
        good = (*facts.cases[:3], *facts.cases[4:])
        facts = dataclasses.replace(facts, cases=(*good[:3], bad, *good[3:]))
        with pytest.raises(InputError, match="1 of 10 that do not") as error:
            plan_one(facts)
        message = str(error.value)
        assert f"\n  {bad.case}: {bad.image_path}: expected at most" in message
        sizes = "at 3000 × 1000 × 1000 mm, resampled to 3 × 1 × 1 mm: shape (20000, 70"
        assert sizes in message
        domain, notes = plan_one(facts, exclude_faulty=True)
        assert f"left out {bad.case}: {bad.image_path}: expected at most" in notes
        expected, _ = plan_one(dataclasses.replace(facts, cases=good))
        assert domain == expected

    def test_spacing_is_the_median_of_cases_that_fit(self):
        facts = make_domain(cases=4)
        bad = dataclasses.replace(facts.cases[0], spacing_mm=(3e4, 1e4, 1e4))
        finer = dataclasses.replace(facts.cases[1], spacing_mm=(2.0, 1.0, 1.0))
        facts = dataclasses.replace(facts, cases=(bad, finer, *facts.cases[2:]))
        domain, _ = plan_one(facts, exclude_faulty=True)
        assert domain.spacing_mm == (3, 1, 1)

    def test_memory_is_limited_by_the_setting(self):
        # Two volumes of 0.45 MB, and matrices.
        with pytest.raises(InputError, match="at most 0.0004 GB .*`max_memory_gb`"):
            plan_one(max_memory_gb=0.0004)
        plan_one(max_memory_gb=0.01)

    def test_a_case_beyond_the_largest_record(self):
        facts = make_domain()
        big = dataclasses.replace(facts.cases[3], spacing_mm=(300.0, 30.0, 3.0))
        facts = dataclasses.replace(
            facts, cases=(*facts.cases[:3], big, *facts.cases[4:])
        )
        words = "expected at most 2146435072 bytes after preprocessing"
        with pytest.raises(InputError, match=words):
            plan_one(facts, max_memory_gb=1000)

    def test_excluding_all_cases_is_an_error(self):
        facts, _ = make_faulty("image")
        facts = dataclasses.replace(facts, cases=facts.cases[3:4])
        with pytest.raises(InputError, match="at least one usable case"):
            plan_one(facts, exclude_faulty=True)


class TestCommand:
    def test_edited_plan_is_not_overwritten(self, plan, tmp_path, run_light):
        plan()
        plan()
        assert "already exists" in plan.done.stdout
        path = tmp_path / "plan.json"
        path.write_text(path.read_text().replace('"batch_size": 2', '"batch_size": 4'))
        edited = path.read_text()
        flags = {"survey": tmp_path / "survey.json", "output": path}
        done = run_light("data_prep.plan", status=1, **flags)
        assert "--overwrite" in done.stderr
        assert path.read_text() == edited
        (domain,) = plan(overwrite=True).domains
        assert domain.batch_size == 2

    def test_older_plan_without_later_fields_is_kept(self, plan, tmp_path):
        before = plan()
        path = tmp_path / "plan.json"
        content = {**json.loads(path.read_text()), "format": 1}
        del content["written_by"], content["domains"][0]["folds"]
        for field in ("intensity_floor", "statistics_over", "size_rounding"):
            del content["domains"][0]["preprocessing"][field]
        path.write_text(json.dumps(content))
        old = path.read_text()
        assert plan() == before
        assert "already exists" in plan.done.stdout
        assert path.read_text() == old

    @pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
    def test_a_file_that_is_not_a_plan_is_not_overwritten(
        self, plan, tmp_path, run_light, content
    ):
        plan()
        path = tmp_path / "plan.json"
        path.write_bytes(content)
        done = run_light("data_prep.plan", status=1, survey=tmp_path, output=path)
        assert "--overwrite" in done.stderr
        assert path.read_bytes() == content

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"domains": "Nowhere"}, "--domains: expected distinct domains among"),
            ({"domains": "Task99_Knee,Task99_Knee"}, "--domains: expected distinct"),
            ({"merge_labels": "Other:knee=1+2"}, "--merge_labels: expected distinct"),
            ({"regions": "Other:knee=1+2"}, "--regions: expected distinct"),
            ({"clip_percentiles": "2"}, "--clip_percentiles: expected two numbers"),
            ({"clip_percentiles": "98,2"}, "Received: 98, 2"),
            ({"intensity_floor": "nan"}, "intensity_floor: expected a finite number"),
            ({"statistics_over": "none"}, "--statistics_over: expected one of "),
            ({"size_rounding": "up"}, "--size_rounding: expected one of "),
            ({"keep_components": "one"}, "--keep_components: expected auto or"),
            (
                {"keep_foreground_components": "-1"},
                "--keep_foreground_components: expected auto or",
            ),
            ({"mirror_axes": "x,w"}, "--mirror_axes: expected auto, none or"),
            (
                {"test_fraction": 1},
                "--test_fraction: expected a number below 1",
            ),
            ({"survey": "/nowhere"}, "/nowhere: expected a survey"),
        ],
    )
    def test_bad_flags_are_reported(self, fail, flags, message):
        assert message in fail(**flags)

    def test_missing_flags_are_reported(self, tmp_path, run_light):
        done = run_light("data_prep.plan", status=1, output=tmp_path / "plan.json")
        assert "--survey: expected a value. Received: none" in done.stderr
        done = run_light("data_prep.plan", status=1, survey=tmp_path)
        assert "--output: expected a value. Received: none" in done.stderr

    def test_output_that_is_a_folder_is_an_error(self, tmp_path, run_light):
        (tmp_path / "survey.json").write_text(survey_file.to_json([make_domain()]))
        flags = {"survey": tmp_path, "output": tmp_path}
        done = run_light("data_prep.plan", status=1, **flags)
        assert "--output: expected a file" in done.stderr
