"""Raw scans and a plan -> TFRecord shards and a manifest per domain.

  python -m data_prep.convert --plan=plan.json --data_dir=DIR

Interrupted, it goes on with the cases that are not done when it is run again. A domain
that is done is left alone; where its plan, these flags, or size and time of its raw
files are no longer what they were, that is an error unless there is --overwrite.
"""

from data_prep.config import ConvertConfig
from u2net_tf import command


def main(config: ConvertConfig) -> None:
    """Converts every domain of the plan."""
    from data_prep import conversion
    from u2net_tf.plan_files import load_plan

    settings = conversion.Settings(
        data_dir=config.data_dir,
        raw_dir=config.raw_dir,
        image_dtype=config.image_dtype,
        compression=config.compression,
        shard_size_mb=config.shard_size_mb,
        num_workers=config.num_workers,
        skip_bad_cases=config.on_bad_case == "skip",
        overwrite=config.overwrite,
    )
    conversion.convert(load_plan(config.plan), list(config.domains), settings)


def run() -> None:
    """Entry point of `u2net-convert`."""
    command.start(main, ConvertConfig)


if __name__ == "__main__":
    run()
