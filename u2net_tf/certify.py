"""Certifies which domains of a model are bit-identical before and after a change.

  python -m u2net_tf.certify --before=DIR --after=DIR --output=certificate.json
  python -m u2net_tf.certify --check=certificate.json

Writes a JSON file of checksums (of the variables, of the logits of fixed patches, and
of label maps of the scans in --scans_dir) and a readable page next to it. --check
recomputes the checksums. Its exit status is 0 if all match the certificate, 1 if one
does not, and 2 if the only differences are in checksums that depend on the build (the
versions of libraries, the processor and the number of cores), and the build is a
different one.
"""

import sys
from collections.abc import Sequence

from tabulate import tabulate

from u2net_tf import command, machine
from u2net_tf.config.certificate import CertifyConfig
from u2net_tf.wording import escape_controls

_STATUS_OF_DIFFERENT_BUILD = 2


def main(config: CertifyConfig) -> None:
    """Writes or checks a certificate."""
    if config.check:
        config.require_check_alone()
    else:
        # Checked before TensorFlow is imported, which takes seconds.
        config.models()
        config.paths()
    machine.import_tensorflow()
    if config.check:
        _check(config)
        return
    from u2net_tf.certification.certify_models import certify

    written = certify(
        config, progress=command.progress_every(config.log.log_every_seconds)
    )
    rows = [
        (verdict.domain, verdict.change, ", ".join(verdict.differences))
        for verdict in written.certificate.verdicts
    ]
    _print_table(rows, ("domain", "verdict", "differs in"))
    print(f"wrote {written.path} and {written.page}")


def _check(config: CertifyConfig) -> None:
    from u2net_tf.certification.check_certificate import check

    report = check(
        config, progress=command.progress_every(config.log.log_every_seconds)
    )
    rows = [(each.model, each.domain, each.finding) for each in report.domains]
    _print_table(rows, ("model", "domain", "checksums"))
    if report.build_differences:
        lines = [f"  {line}" for line in report.build_differences]
        # Certificates from others may contain characters that control a terminal.
        print(escape_controls("\n".join(["different build:", *lines])))
    if report.same_verdicts is not None:
        verdicts = "as" if report.same_verdicts else "not as"
        print(f"verdicts of this build: {verdicts} certified")
    if report.is_refuted:
        sys.exit(f"error: {config.check}: the models do not match the certificate")
    if not report.is_verified:
        print(f"{config.check}: different build: not comparable bit for bit")
        sys.exit(_STATUS_OF_DIFFERENT_BUILD)
    print(f"{config.check}: verified")


def _print_table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> None:
    table = tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
    print(escape_controls(table))


def run() -> None:
    """Entry point of `u2net-certify`."""
    command.start(main, CertifyConfig)


if __name__ == "__main__":
    run()
