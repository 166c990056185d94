"""Certificates: verdicts, verification, other builds, the HTML page."""

import dataclasses
import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest
import toy
from killed_writer import leave_temporary_file
from power_cuts import PowerCuts

from u2net_tf import certify, temporary_names
from u2net_tf.certification import (
    certify_models,
    check_certificate,
    measure,
    page,
)
from u2net_tf.certification.build import current_build
from u2net_tf.certification.certificate import (
    CERTIFICATE,
    Certificate,
    DomainRecord,
    ModelRecord,
    ScanRecord,
    Verdict,
    compare,
    to_json,
)
from u2net_tf.certification.check_certificate import NOT_COMPARABLE, VERIFIED
from u2net_tf.certification.probes import make_probes
from u2net_tf.config.certificate import CertifyConfig
from u2net_tf.errors import InputError
from u2net_tf.models import composition
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.loading import save_model
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.preprocessing import IntensityStatistics, Preprocessing

pytestmark = pytest.mark.usefixtures("plain_implementation")

THREE = dataclasses.replace(toy.TWO, name="Task93_Three")


def record(name="A", *, scans=(), logits="1", **checksums):
    given = {"trunk": "2", "variables": "3", "settings": "4", **checksums}
    return DomainRecord(
        name=name,
        checkpoint="checkpoints/step-0",
        logits_sha256={"noise": logits * 64},
        scans=scans,
        **{f"{key}_sha256": value * 64 for key, value in given.items()},
    )


def scan(label_map="5", image="6", name="s"):
    return ScanRecord(name, image * 64, label_map * 64)


def model(*domains, model_dir="m"):
    return ModelRecord(model_dir, domains)


def certificate_of(before, after, **changes):
    given = {"created": "2026-01-01 00:00:00 UTC", "build": current_build()}
    given |= {"scans_dir": None, "verdicts": compare(before, after), **changes}
    return Certificate(before=before, after=after, **given)


class TestVerdicts:
    @pytest.mark.parametrize(
        ("after", "differences"),
        [
            (record(), ()),
            (record(trunk="a"), ("trunk",)),
            (record(variables="a"), ("variables",)),
            (record(settings="a", logits="b"), ("settings", "logits")),
            (record(scans=(scan("a"),)), ("label maps",)),
        ],
    )
    def test_every_checksum_counts(self, after, differences):
        before = record(scans=(scan(),)) if after.scans else record()
        (found,) = compare(model(before), model(after))
        assert found.change == ("changed" if differences else "identical")
        assert found.differences == differences

    def test_another_checkpoint_of_the_same_values_is_identical(self):
        other = dataclasses.replace(record(), checkpoint="checkpoints/step-9")
        assert compare(model(record()), model(other)) == (Verdict("A", "identical"),)

    def test_added_and_removed(self):
        found = compare(
            model(record("A"), record("B")), model(record("C"), record("B"))
        )
        assert found == (
            Verdict("A", "removed"),
            Verdict("B", "identical"),
            Verdict("C", "added"),
        )


class TestFile:
    CERTIFICATE = certificate_of(model(record()), model(record(variables="a")))

    def test_round_trip(self):
        assert CERTIFICATE.from_text(to_json(self.CERTIFICATE), "c") == self.CERTIFICATE

    @pytest.mark.parametrize(
        ("place", "value", "words"),
        [
            (("verdicts", 0, "change"), "identical", "verdicts: .* edited"),
            (("verdicts", 0, "change"), "same", r"verdicts\[0\].change: expected"),
            (
                ("before", "domains", 0, "trunk_sha256"),
                "x",
                "before.* 64 digits .* Received: 'x'",
            ),
            (("before", "domains", 0, "variables_sha256"), "a" * 64, "verdicts: .*"),
            (("before", "domains"), [], "before.domains: expected at least 1"),
            (("build", "num_cores"), 0, "build.num_cores: expected"),
        ],
    )
    def test_an_edited_certificate_is_reported(self, place, value, words):
        fields = json.loads(to_json(self.CERTIFICATE))
        inner = fields
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        with pytest.raises(InputError, match=f"^c: {words}"):
            CERTIFICATE.from_text(json.dumps(fields), "c")


class TestPage:
    def test_shows_all_and_escapes_names(self):
        before = model(record("<b>"), record("B"), model_dir="<script>")
        after = model(record("<b>", scans=(scan(name="<i>"),)), record("C", trunk="d"))
        text = page.to_html(
            certificate_of(before, after), name="c.json", sha256="e" * 64
        )
        assert page.is_page(text.encode())
        assert "<script>" not in text
        assert "<b>" not in text
        assert "<i>" not in text
        for shown in ("&lt;b&gt;", "&lt;script&gt;", "d" * 64, "e" * 64, "unknown"):
            assert shown in text or (shown == "unknown" and current_build().commit)
        assert "3 domains: 1 changed, 1 added, 1 removed." in text
        assert "does not replace verification" in text


class TestProbes:
    def test_never_change(self):
        """The checksums of old certificates depend on them."""
        found = {
            name: hashlib.sha256(patch.astype("<f4").tobytes()).hexdigest()[:16]
            for name, patch in make_probes((1, 0, 1), 2).items()
        }
        assert found == GOLDEN

    def test_match_their_names(self):
        probes = make_probes((3, 2, 3), 1)
        assert {patch.shape for patch in probes.values()} == {(1, 16, 8, 16, 1)}
        noise = probes["noise"]
        assert abs(noise.mean()) < 0.05
        assert abs(noise.std() - 1) < 0.05
        beside = probes["noise beside zeros"]
        assert not beside[:, :8].any()
        assert beside[:, 8:].all()
        assert (np.diff(probes["ramps"], axis=3) > 0).all()


GOLDEN = {
    "noise": "96d65fc34b37b8b1",
    "noise beside zeros": "384c9a1081314b9b",
    "ramps": "9baae2bbbf94e0df",
}


class TestSettings:
    SPEC = ModelSpec(plan=toy.PLAN, pools=(1, 1, 1), base_channels=4)

    def test_never_change(self):
        assert measure.settings_checksum(self.SPEC, 0)[:16] == SETTINGS

    def test_exclude_names_of_cases(self):
        found = measure.settings_checksum(without_case_names(self.SPEC), 0)
        assert found == measure.settings_checksum(self.SPEC, 0)

    @pytest.mark.parametrize(
        "change",
        [
            {"patch_size": (8, 8, 10)},
            {
                "labels": (
                    toy.ONE.labels[0],
                    dataclasses.replace(toy.ONE.labels[1], name="o"),
                )
            },
            {
                "labels": (
                    toy.ONE.labels[0],
                    dataclasses.replace(toy.ONE.labels[1], keep_components=2),
                )
            },
            {"spacing_mm": (1.0, 1.0, 2.0)},
            {"keep_foreground_components": 1},
            {
                "preprocessing": Preprocessing(
                    intensity_statistics=(
                        IntensityStatistics(low=0, high=9, mean=5, std=2),
                    )
                )
            },
        ],
    )
    def test_include_what_predictions_depend_on(self, change):
        domain = dataclasses.replace(toy.ONE, **change)
        plan = dataclasses.replace(toy.PLAN, domains=(domain, toy.TWO))
        other = dataclasses.replace(self.SPEC, plan=plan)
        changed = [
            measure.settings_checksum(spec, index)
            for spec in (self.SPEC, other)
            for index in (0, 1)
        ]
        assert changed[0] != changed[2]
        assert changed[1] == changed[3]

    def test_include_settings_of_the_network(self):
        other = dataclasses.replace(self.SPEC, resize_method="cubic")
        assert measure.settings_checksum(other, 0) != measure.settings_checksum(
            self.SPEC, 0
        )


SETTINGS = "6764a288b448221d"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model and its successor: one domain is kept, one removed, one added."""
    folder = tmp_path_factory.mktemp("models")
    before = toy.make_model(adapter="none", architecture="unet_sharp", depth=1)
    save_model(folder / "before", *before)
    extended = composition.extend(*before, THREE, init="mean")
    save_model(folder / "after", *composition.compose({"": extended}, [toy.TWO.name]))
    return folder


def config(folder, output, **options):
    given = {"before": str(folder / "before"), "after": str(folder / "after")}
    return CertifyConfig.from_flat({**given, "output": str(output), **options})


class TestCertify:
    def test_written_checked_and_not_replaced(self, models, tmp_path, monkeypatch):
        # One probe is enough here.
        monkeypatch.setattr(
            measure,
            "make_probes",
            lambda *given: {"noise": make_probes(*given)["noise"]},
        )
        given = config(models, tmp_path / "c.json")
        written = certify_models.certify(given)
        assert [verdict.change for verdict in written.certificate.verdicts] == [
            "identical",
            "removed",
            "added",
        ]
        text = (tmp_path / "c.json").read_text()
        assert CERTIFICATE.from_text(text, "c") == written.certificate
        shown = (tmp_path / "c.html").read_text()
        assert hashlib.sha256(text.encode()).hexdigest() in shown
        with pytest.raises(InputError, match="c.json: expected a new file"):
            certify_models.certify(given)
        checking = CertifyConfig(check=str(tmp_path / "c.json"))
        report = check_certificate.check(checking)
        assert report.is_verified
        assert report.same_verdicts
        assert len(report.domains) == 4
        # Another build, which computes other bits.
        build = dataclasses.replace(current_build(), cpu="another")
        monkeypatch.setattr(check_certificate, "current_build", lambda: build)
        logits_on_cpu = measure.checksums.logits_on_cpu
        monkeypatch.setattr(
            measure.checksums,
            "logits_on_cpu",
            lambda *args: 1.01 * logits_on_cpu(*args),
        )
        report = check_certificate.check(checking)
        assert {each.finding for each in report.domains} == {NOT_COMPARABLE}
        assert not report.is_verified
        assert not report.is_refuted
        assert report.same_verdicts
        (line,) = report.build_differences
        assert line.endswith(", now another")
        monkeypatch.setattr(check_certificate, "current_build", current_build)
        # Only one of the models, moved, in the same build.
        shutil.copytree(models / "after", tmp_path / "moved")
        one = checking.with_changes(after=str(tmp_path / "moved"))
        report = check_certificate.check(one)
        assert {each.finding for each in report.domains} == {"different logits"}
        assert report.is_refuted
        assert report.same_verdicts is None

    @pytest.mark.parametrize(
        ("cpu", "changes", "refuted"),
        [
            ("another", {"label_map": "5"}, False),
            ("another", {"label_map": "5", "settings": "6"}, True),
            ("another", {"variables": "3", "logits": "1", "label_map": "5"}, True),
            (None, {"label_map": "5"}, True),
        ],
    )
    def test_verdicts_of_another_build(
        self, models, tmp_path, monkeypatch, cpu, changes, refuted
    ):
        """A change of variables that changes a label map in one of the builds only."""

        def measured(label_map="5", **checksums):
            return record(scans=(scan(label_map),), **checksums)

        after = {"variables": "7", "logits": "8", "label_map": "9"}
        records = {"before": measured(), "after": measured(**after)}

        def measure_model(folder, scans_dir, progress):
            return model(records[pathlib.Path(folder).name], model_dir=folder)

        for module in (certify_models, check_certificate):
            monkeypatch.setattr(module, "measure_model", measure_model)
            monkeypatch.setattr(module, "require_usable", lambda *arguments: None)
        certify_models.certify(
            config(models, tmp_path / "c.json", scans_dir=str(tmp_path))
        )
        build = current_build()
        build = dataclasses.replace(build, cpu=cpu or build.cpu)
        monkeypatch.setattr(check_certificate, "current_build", lambda: build)
        records["after"] = measured(**{**after, **changes})
        report = check_certificate.check(CertifyConfig(check=str(tmp_path / "c.json")))
        assert report.is_refuted == refuted
        assert not report.is_verified
        assert report.same_verdicts != refuted

    def test_a_page_of_a_killed_run_is_replaced_and_another_is_not(
        self, models, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(
            certify_models,
            "measure_model",
            lambda folder, scans_dir, progress: model(record()),
        )
        (tmp_path / "c.html").write_text("mine")
        given = config(models, tmp_path / "c.json")
        with pytest.raises(InputError, match="c.html: expected a new file"):
            certify_models.certify(given)
        certify_models.certify(given.with_changes(overwrite=True))
        (tmp_path / "c.json").unlink()
        left = leave_temporary_file(tmp_path / "c.json")
        certify_models.certify(given)
        assert not left.exists()
        assert (tmp_path / "c.json").exists()

    def test_no_certificate_is_left_beside_the_page_of_another(
        self, models, tmp_path, monkeypatch
    ):
        given = config(models, tmp_path / "c.json", overwrite=True)

        def measured(found):
            monkeypatch.setattr(
                certify_models, "measure_model", lambda *given, progress: found
            )

        measured(model(record()))
        certify_models.certify(given)
        measured(model(record(trunk="a")))
        with PowerCuts(tmp_path, ignored=(temporary_names.PREFIX,)) as cuts:
            certify_models.certify(given)
        seen = set()
        for state in map(dict, cuts.states):
            if "c.json" in state:
                checksum = hashlib.sha256(state["c.json"]).hexdigest()
                assert checksum.encode() in state["c.html"]
                seen.add(checksum)
        assert len(seen) == 2

    @pytest.mark.parametrize("options", [{"output": "d.json"}, {"overwrite": True}])
    def test_check_refuses_what_it_would_ignore(self, options):
        CertifyConfig(check="c", before="a").require_check_alone()
        (name,) = options
        with pytest.raises(InputError, match=f"`{name}`: expected no value with `che"):
            CertifyConfig(check="c", **options).require_check_alone()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"before": ""}, "`before`: expected a value"),
            ({"after": ""}, "`after`: expected a value"),
            ({"output": "c.txt"}, "`output`: expected a name that ends in .json"),
            ({"before": "no"}, "no: expected a model"),
            ({"after": "no"}, "no: expected a model"),
            (
                {"scans_dir": "no"},
                "`scans_dir`: expected a folder with folders of scans",
            ),
        ],
    )
    def test_unusable_input_is_rejected(
        self, models, tmp_path, options, words, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        given = {"before": str(models / "before"), "after": str(models / "after")}
        given |= {"output": "c.json", **options}
        # Nothing is computed before the check.
        monkeypatch.delattr(certify_models, "measure_model")
        with pytest.raises(InputError, match=words):
            certify_models.certify(CertifyConfig(**given))
        assert not list(tmp_path.glob("c.*"))


class TestCheck:
    @pytest.mark.parametrize(
        ("found", "finding"),
        [
            (record(), VERIFIED),
            (record(trunk="a"), "different trunk"),
            (record(logits="a"), "different logits"),
            (record("B"), "not in the model"),
        ],
    )
    def test_findings(self, found, finding):
        rows = check_certificate._compare(
            "after", model(record()), model(found), is_same_build=True
        )
        assert rows[0].finding == finding
        assert len(rows) == (2 if found.name == "B" else 1)

    def test_variables_are_the_same_in_every_build(self):
        found = check_certificate._finding(record(), record(variables="a"), False)
        assert found == "different variables"

    def test_other_scans(self):
        one, other = record(scans=(scan(),)), record(scans=(scan(image="a"),))
        assert check_certificate._finding(one, other, False) == "different scans"


def test_label_maps_of_scans(tiny_data, tmp_path):
    """Every scan of a domain is measured."""
    one, two = tiny_data.plan.domains
    save_model(tmp_path / "m", *toy.make_model((one,), adapter="none"))
    folder = tmp_path / "scans" / one.name
    folder.mkdir(parents=True)
    for case in ("one_0", "one_1"):
        shutil.copy(
            tiny_data.raw_dir / one.name / "imagesTr" / f"{case}.nii.gz", folder
        )
    (found,) = measure.measure_model(tmp_path / "m", tmp_path / "scans").domains
    assert [each.name for each in found.scans] == ["one_0", "one_1"]
    assert found.scans[0].image_sha256 != found.scans[1].image_sha256
    (again,) = measure.measure_model(tmp_path / "m").domains
    assert again == dataclasses.replace(found, scans=())
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(InputError, match="`scans_dir`: .*empty folder$"):
        measure.require_usable([tmp_path / "m"], tmp_path / "scans")


def test_printed_certificates_cannot_control_a_terminal(monkeypatch, capsys):
    report = check_certificate.CheckReport(
        (check_certificate.CheckedDomain("before", "a\x1b[2J", VERIFIED),),
        ("cpu b\x9b2J, now c",),
        None,
    )
    monkeypatch.setattr(check_certificate, "check", lambda config, progress: report)
    certify.main(CertifyConfig(check="c.json"))
    printed = capsys.readouterr().out
    assert "a\\u001b[2J" in printed
    assert "cpu b\\u009b2J, now c" in printed
