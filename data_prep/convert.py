"""Raw scans and a plan -> TFRecord shards and a manifest per domain.

  python -m data_prep.convert --plan=plan.json --data_dir=DIR

Interrupted, it goes on with the cases that are not done when it is run again. A domain
that is done is left alone; where its plan, these flags, or size and time of its raw
files are no longer what they were, that is an error unless there is --overwrite.
"""

from collections.abc import Sequence

from absl import flags

from u2net_tf import command, manifest

_PLAN = flags.DEFINE_string("plan", None, "Plan, as data_prep.plan writes it.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder for the shards.")
_RAW_DIR = flags.DEFINE_string(
    "raw_dir",
    None,
    "Folder with a folder per domain, if the scans have moved since the survey.",
)
_DOMAINS = flags.DEFINE_list("domains", [], "Domains to convert; all if empty.")
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "Processes; the number of cores if not given.", lower_bound=1
)
_SHARD_SIZE_MB = flags.DEFINE_integer(
    "shard_size_mb",
    100,
    "A shard is closed once it is this large, before compression.",
    lower_bound=1,
)
_COMPRESSION = flags.DEFINE_enum(
    "compression", "none", manifest.COMPRESSIONS, "Compression of the shards."
)
_IMAGE_DTYPE = flags.DEFINE_enum(
    "image_dtype", "float16", manifest.IMAGE_DTYPES, "Type that images are stored in."
)
_ON_BAD_CASE = flags.DEFINE_enum(
    "on_bad_case",
    "fail",
    ["fail", "skip"],
    "Stop at a case that cannot be used, or list it and go on.",
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite",
    False,
    "Replace shards that were made with another plan, other flags or other raw files.",
)


def main(argv: Sequence[str]) -> None:
    """Converts every domain of the plan."""
    del argv
    command.required(_PLAN, _DATA_DIR)
    from data_prep import conversion
    from u2net_tf.plan_files import load_plan

    settings = conversion.Settings(
        data_dir=_DATA_DIR.value,
        raw_dir=_RAW_DIR.value,
        image_dtype=_IMAGE_DTYPE.value,
        compression=_COMPRESSION.value,
        shard_size_mb=_SHARD_SIZE_MB.value,
        num_workers=_NUM_WORKERS.value,
        skip_bad_cases=_ON_BAD_CASE.value == "skip",
        overwrite=_OVERWRITE.value,
    )
    conversion.convert(load_plan(_PLAN.value), _DOMAINS.value, settings)


def run() -> None:
    """Entry point of `u2net-convert`."""
    command.start(main)


if __name__ == "__main__":
    run()
