"""A small DICOM series, as scanners write them."""

import numpy as np
import SimpleITK as sitk


def write_series(folder):
    """Writes 8 slices of 9 × 9 voxels of 1 mm, a file each; returns the files."""
    folder.mkdir()
    for index in range(8):
        values = np.random.default_rng(index).integers(0, 99, (9, 9), np.int16)
        image = sitk.GetImageFromArray(values[np.newaxis])
        tags = {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0020|000e": "1.2.3",
            "0020|000d": "1.2.4",
            "0020|0013": str(index),
            "0020|0032": f"0\\0\\{index}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{index}.dcm"))
        writer.Execute(image)
    return sorted(folder.iterdir())
