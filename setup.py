"""Packaging of u2net-tf: one 3D segmentation network for many organs."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
# Read, not imported: the package's requirements are not installed yet.
INIT = (ROOT / "u2net_tf" / "__init__.py").read_text(encoding="utf-8")
(VERSION,) = re.findall('^__version__ = "(.+)"$', INIT, re.MULTILINE)

# What is needed besides TensorFlow; without it, this list is enough to predict with
# exported models. The package ships the list.
RUNTIME = [
    line
    for line in (ROOT / "u2net_tf" / "runtime.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
TENSORFLOW = ">=2.21,<2.22"
GPU = [f"tensorflow[and-cuda]{TENSORFLOW}"]
PICTURES = ["matplotlib>=3.8"]
# Before, p-values of ties and unchanged cases were approximate for few cases.
STATISTICS = ["scipy>=1.15"]
# Converters for the formats of `u2net_tf.export`, and their runtimes. The newest
# onnxruntime for Python 3.10 is 1.23.
EXPORT = [
    "tf2onnx>=1.17,<2",
    "onnx>=1.23,<2",
    "onnxruntime>=1.23,<2",
]
DICOM_SEG = ["highdicom>=0.28,<1"]
# The page of the server is tested in Chromium through it.
BROWSER = ["playwright>=1.50"]
SERVE = ["starlette>=1,<2", "uvicorn>=0.40,<1", "python-multipart>=0.0.20"]
# Benchmarks and the porting of published weights were tested with this version.
TORCH = ["torch==2.13.0"]
# What tools/bench compares this project with.
BENCH = [*TORCH, "monai>=1.6,<2", "batchgenerators>=0.25,<1", "onnxscript>=0.7"]
DEV = [
    "pytest>=8",
    "pytest-cov>=7",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.7",
    "setuptools>=70.1",
    "coverage>=7.10",
    "ruff>=0.9,<1",
    "mypy>=1.13",
    "types-tabulate>=0.9",
    "types-tqdm>=4.66",
    "codespell>=2.4",
    "pre-commit>=3",
    "pre-commit-hooks>=5",
]

COMMANDS = {
    "u2net-survey": "data_prep.survey.__main__",
    "u2net-plan": "data_prep.plan.__main__",
    "u2net-convert": "data_prep.convert.__main__",
    "u2net-verify": "data_prep.verify",
    "u2net-train": "u2net_tf.train",
    "u2net-adapt": "u2net_tf.adapt",
    "u2net-compose": "u2net_tf.compose",
    "u2net-adapter": "u2net_tf.adapter",
    "u2net-certify": "u2net_tf.certify",
    "u2net-evaluate": "u2net_tf.evaluate",
    "u2net-score": "u2net_tf.score",
    "u2net-compare": "u2net_tf.compare",
    "u2net-predict": "u2net_tf.predict",
    "u2net-export": "u2net_tf.export",
    "u2net-pack": "u2net_tf.pack",
    "u2net-serve": "u2net_tf.serve",
    "u2net-describe": "u2net_tf.describe",
    "u2net-complexity": "u2net_tf.complexity",
    "u2net-show-augmentations": "u2net_tf.show_augmentations",
    "u2net-draw-overlays": "u2net_tf.draw_overlays",
    "u2net-plot-training": "u2net_tf.plot_training",
    "u2net-port-torch-weights": "u2net_tf.port_torch_weights",
}

setuptools.setup(
    name="u2net-tf",
    version=VERSION,
    description="3D U²-Net: one 3D network for many organs, on TensorFlow and Keras",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # TensorFlow 2.21 has no wheels for later versions.
    python_requires=">=3.10,<3.14",
    packages=setuptools.find_packages(include=["u2net_tf*", "data_prep*"]),
    package_data={
        "u2net_tf": [
            "flagfiles/*.flags",
            "runtime.txt",
            "serving/page/*",
            "trained/*",
            "py.typed",
        ],
        "data_prep": ["flagfiles/*.flags"],
    },
    install_requires=[
        f"tensorflow{TENSORFLOW}",
        "keras>=3.12,<4",
        "tensorboard>=2.20",
        *RUNTIME,
    ],
    extras_require={
        "gpu": GPU,
        "pictures": PICTURES,
        "statistics": STATISTICS,
        "export": EXPORT,
        "dicom_seg": DICOM_SEG,
        "serve": SERVE,
        "torch": TORCH,
        "bench": BENCH,
        "browser": BROWSER,
        "dev": DEV + PICTURES + STATISTICS + DICOM_SEG + EXPORT + SERVE,
    },
    entry_points={
        "console_scripts": [
            f"{name} = {module}:run" for name, module in COMMANDS.items()
        ]
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
