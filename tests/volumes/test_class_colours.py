from u2net_tf.volumes.class_colours import CLASS_COLOURS, class_colour, class_rgb


def test_every_class_has_a_distinct_colour():
    colours = [class_colour(number) for number in range(1, 120)]
    assert tuple(colours[: len(CLASS_COLOURS)]) == CLASS_COLOURS
    assert len(set(colours)) == len(colours)
    assert {len(colour) for colour in colours} == {7}


def test_components_of_a_colour():
    assert class_rgb(2) == (0x33 / 255, 0xCC / 255, 1.0)
