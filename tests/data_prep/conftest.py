"""The plan command, run on surveys that were never on disk."""

import pytest
from invented_surveys import make_domain

from data_prep import survey_files
from u2net_tf.domains import load_plan


@pytest.fixture
def plan(tmp_path, run_command):
    """Surveys in memory -> the plan, through the command line."""

    def run(*domains, **flags):
        text = survey_files.to_json(domains or [make_domain()])
        (tmp_path / "survey.json").write_text(text)
        output = tmp_path / "plan.json"
        flags = {"survey": tmp_path, "output": output, **flags}
        run.done = run_command("data_prep.plan", **flags)
        return load_plan(output)

    return run


@pytest.fixture
def fail(tmp_path, run_command):
    """The same where it must fail, writing nothing; returns the message."""

    def run(*domains, **flags):
        text = survey_files.to_json(domains or [make_domain()])
        (tmp_path / "survey.json").write_text(text)
        output = tmp_path / "plan.json"
        flags = {"survey": tmp_path, "output": output, **flags}
        done = run_command("data_prep.plan", status=1, **flags)
        assert not output.exists()
        return done.stderr

    return run
