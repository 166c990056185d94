import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver

from u2net_tf.inference import flags


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ([], {}),
        (["--overlap=0.25"], {"overlap": 0.25}),
        (["--batch_size=3"], {"batch_size": 3}),
        (["--noskip_empty"], {"skip_empty": False}),
        (["--precision=mixed_bfloat16"], {"precision": "mixed_bfloat16"}),
        (["--checkpoint=best"], {"checkpoint": "best"}),
    ],
)
def test_settings_are_what_the_flags_say(arguments, changed):
    with flagsaver.flagsaver():
        absl_flags.FLAGS(["test", *arguments])
        assert flags.settings() == {
            "overlap": 0.5,
            "batch_size": 1,
            "skip_empty": True,
            "precision": "float32",
            "checkpoint": "newest",
            **changed,
        }
