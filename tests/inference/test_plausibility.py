import dataclasses

import numpy as np
import pytest
import toy

from u2net_tf.inference.plausibility import differences
from u2net_tf.plan.scan_ranges import ScanRanges
from u2net_tf.volumes.grid import Volume

# Scans of 50 to 100 mm with intensities of air, tissue and bone.
CT = dataclasses.replace(
    toy.ONE,
    median_shape=(20, 40, 40),
    spacing_mm=(3.0, 1.0, 1.0),
    scans=ScanRanges(
        spacing_mm=((1.0, 5.0), (0.7, 1.5), (0.7, 1.5)),
        extent_mm=((50.0, 100.0), (40.0, 60.0), (40.0, 60.0)),
        intensities=(((-1024.0, -1000.0), (-900.0, 0.0), (200.0, 400.0)),),
    ),
)
MR = dataclasses.replace(CT, modalities=("T2",), scans=None)


def draw(low=-1000, high=300, *, shape=(20, 40, 40), spacing_mm=(3, 1, 1), channels=1):
    values = np.random.default_rng(0).uniform(low, high, (channels, *shape))
    return Volume(values.astype(np.float32), spacing_mm, grid=None)


def without_ranges(domain):
    return dataclasses.replace(domain, scans=None)


@pytest.mark.parametrize("domain", [CT, without_ranges(CT)])
def test_a_plausible_scan_is_not_reported(domain):
    assert differences(draw(), domain) == []
    assert differences(draw(shape=(35, 70, 60), spacing_mm=(2, 0.7, 0.8)), domain) == []


@pytest.mark.parametrize(
    ("domain", "usual"), [(CT, "0.7 to 1.5"), (without_ranges(CT), "1")]
)
def test_a_wrong_unit(domain, usual):
    found = differences(draw(spacing_mm=(3, 1, 100)), domain)
    assert found[0] == f"voxels of 100 mm along x, not {usual} mm"
    assert found[1].startswith("an extent of 4000 mm along x, not ")
    assert len(found) == 2


def test_an_extent_of_more_than_twice_the_range():
    assert differences(draw(shape=(66, 40, 40)), CT) == []
    (found,) = differences(draw(shape=(67, 40, 40)), CT)
    assert found == "an extent of 201 mm along z, not 50 to 100 mm"
    assert differences(draw(shape=(67, 40, 40)), without_ranges(CT)) == []
    (found,) = differences(draw(shape=(4, 40, 40)), without_ranges(CT))
    assert found == "an extent of 12 mm along z, not 60 mm"


@pytest.mark.parametrize(
    ("low", "high", "percentile"), [(0, 900, 2), (-1000, 5000, 98)]
)
def test_intensities_outside_the_range(low, high, percentile):
    found = differences(draw(low, high), CT)
    assert found
    assert any(
        text.startswith(f"CT: percentile {percentile} of the int") for text in found
    )


def test_intensities_of_each_modality_have_their_range():
    scans = dataclasses.replace(CT.scans, intensities=CT.scans.intensities * 2)
    pair = dataclasses.replace(CT, modalities=("CT", "PET"), scans=scans)
    image = draw(channels=2)
    image.data[1] += 5000
    assert {text[:4] for text in differences(image, pair)} == {"PET:"}


def test_without_ranges_hounsfield_units_in_another_modality():
    found = differences(draw(), MR)
    assert found == [
        "T2: 38% of the intensities below -500, like CT in Hounsfield units"
    ]
    assert differences(draw(0, 900), MR) == []


def test_a_label_map():
    image = draw()
    image.data[...] = np.random.default_rng(0).integers(0, 16, image.data.shape)
    for domain in (CT, MR):
        assert differences(image, domain) == [
            f"{domain.modalities[0]}: only 16 distinct intensities, like a label map"
        ]
    image.data[0, 0, 0, 0] = 16
    assert differences(image, MR) == []
