"""Contact sheets of a survey: their files and their cases."""

import json
import shutil

import pytest
from in_process import InProcess

from data_prep.config import SurveyConfig
from data_prep.survey import draw_pictures, survey_domains
from data_prep.survey.draw_pictures import thumbnail_path
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.visualization import case_sheet, figures


@pytest.fixture
def sheets(monkeypatch):
    """Records panels, classes and title by name of the sheet, in place of drawing."""
    found = {}

    def spy(panels, classes, output, *, title):
        found[output.name] = (panels, classes, title)
        output.parent.mkdir(exist_ok=True)
        output.write_bytes(b"sheet")

    monkeypatch.setattr(draw_pictures.case_sheet, "draw_case_sheet", spy)
    return found


@pytest.fixture
def survey(monkeypatch, tmp_path, faulty):
    monkeypatch.setattr(
        survey_domains.parallel, "workers", lambda *_, **__: InProcess()
    )

    def survey(**settings):
        settings = {"raw_dir": str(faulty), "output_dir": str(tmp_path), **settings}
        return survey_domains.write_survey(SurveyConfig(**settings))

    return survey


def test_every_readable_case_is_on_a_sheet(survey, sheets, tmp_path):
    domains, drawn = survey(pictures=str(tmp_path / "p"))
    assert drawn == [tmp_path / "p" / "Faulty.png", tmp_path / "p" / "Two.png"]
    panels, classes, title = sheets["Faulty.png"]
    readable = {case.case for case in domains[0].cases if case.shape}
    assert {panel.name for panel in panels} == readable
    assert classes == ["organ", "never"]
    assert title.startswith(f"Faulty: {len(readable)} of {len(domains[0].cases)} cases")
    assert "not shown because of faults: cut_short, flat, no_image" in title
    by_name = {panel.name: panel for panel in panels}
    assert by_name["unknown_value"].is_faulty
    assert by_name["unknown_value"].note.endswith("\nfault: unknown label")
    assert not by_name["good"].thumbnail.classes.max() > 2
    for name in ("no_label", "other_shape", "other_grid", "fractions"):
        assert not by_name[name].thumbnail.has_labels
    # The most unusual case comes first.
    scores = [float(p.note.split("score ")[1].split("\n")[0]) for p in panels]
    assert scores == sorted(scores, reverse=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_voxels_without_annotation_are_background(survey, sheets, faulty, tmp_path):
    moved = shutil.copytree(faulty, tmp_path / "moved")
    path = moved / "Two" / "dataset.json"
    content = json.loads(path.read_text())
    content["labels"] = {"0": "background", "1": "ignore", "2": "organ"}
    path.write_text(json.dumps(content))
    survey(raw_dir=str(moved), domains=("Two",), pictures=str(tmp_path / "p"))
    panels, _, _ = sheets["Two.png"]
    assert {panel.thumbnail.classes.max() for panel in panels} == {0}


def test_without_the_setting_nothing_is_drawn(survey, sheets, tmp_path):
    domains, drawn = survey(domains=("Two",))
    assert (drawn, sheets) == ([], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "survey.csv",
        "survey.json",
    ]


def test_many_cases_need_several_sheets_and_old_ones_are_removed(
    survey, sheets, tmp_path, monkeypatch
):
    pictures = tmp_path / "p"
    pictures.mkdir()
    # Sheets of other domains.
    others = ["Two-2.png", "Two-x.png", "TwoB.png"]
    for name in ("Two.png", "Two.page-3.png", *others):
        (pictures / name).touch()
    monkeypatch.setattr(case_sheet, "CASES_PER_SHEET", 1)
    _, drawn = survey(domains=("Two",), pictures=str(pictures))
    pages = ["Two.page-1.png", "Two.page-2.png"]
    assert [path.name for path in drawn] == pages
    assert {path.name for path in pictures.iterdir()} == {*pages, *others}
    assert "sheet 2 of 2" in sheets["Two.page-2.png"][2]


def test_a_resumed_survey_draws_every_case(survey, sheets, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    settings = {"domains": ("Two",), "pictures": str(tmp_path / "p")}
    with monkeypatch.context() as patch:
        patch.setattr(survey_domains.files, "write_text", stop)
        with pytest.raises(KeyboardInterrupt):
            survey(domains=("Two",))
    examined = []
    real = survey_domains.examine_case
    monkeypatch.setattr(
        survey_domains,
        "examine_case",
        lambda job: examined.append(job.case) or real(job),
    )
    # Both cases have been examined but not drawn.
    with monkeypatch.context() as patch:
        patch.setattr(survey_domains.files, "write_text", stop)
        with pytest.raises(KeyboardInterrupt):
            survey(**settings)
    assert examined == ["a", "b"]
    thumbnails = tmp_path / survey_domains.THUMBNAILS_NAME
    thumbnail_path(thumbnails, "Two", "b").unlink()
    survey(**settings)
    assert examined == ["a", "b", "b"]
    assert len(sheets["Two.png"][0]) == 2


def test_obstacles_are_reported_before_the_survey(survey, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="`pictures`: expected a folder. Received: th"):
        survey(pictures=str(tmp_path / "file"))

    def refuse():
        raise StoppedError("pictures need matplotlib")

    monkeypatch.setattr(figures, "require_matplotlib", refuse)
    with pytest.raises(StoppedError, match="matplotlib"):
        survey(pictures=str(tmp_path / "p"))
    assert not (tmp_path / "survey.json").exists()


def test_the_command_lists_its_pictures(tmp_path, faulty, run_light):
    shutil.copytree(faulty / "Two", tmp_path / "raw" / "Two")
    flags = {"raw_dir": tmp_path / "raw", "output_dir": tmp_path / "out"}
    done = run_light("data_prep.survey", pictures=tmp_path / "p", **flags)
    assert done.stdout.endswith(f"\ndrew {tmp_path}/p/Two.png\n")
    assert (tmp_path / "p" / "Two.png").read_bytes().startswith(b"\x89PNG")
