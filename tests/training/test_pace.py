from u2net_tf.training.pace import Pace


def test_predicts_steps_and_validations():
    pace = Pace()
    pace.add_step(60.0, compiled=True)
    assert pace.seconds_left(3, 0) is None
    pace.add_step(1.0, compiled=False)
    pace.add_step(2.0, compiled=False)
    assert pace.seconds_left(10, 2) == 15.0
    pace.seconds_validating = 20.0
    assert pace.seconds_left(10, 2) == 55.0
