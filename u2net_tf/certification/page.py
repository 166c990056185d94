"""The page of a certificate: a self-contained, printable HTML file."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from u2net_tf.certification.certificate import (
    Certificate,
    DomainRecord,
    Verdict,
)
from u2net_tf.wording import quantity

_MEANING = {
    "identical": "Variables, settings and all computed values are bit-identical.",
    "changed": "Present in both models, with differences.",
    "added": "Present only in the model after the change.",
    "removed": "Present only in the model before the change.",
}
_CHECK = "`python -m u2net_tf.certify --check=FILE --before=DIR --after=DIR`"
_HEAD = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    "<title>Certificate of a model change: "
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
  border-bottom: 1px solid #d0d0d0; }
th { font-weight: 600; } td { overflow-wrap: anywhere; }
.checksums { table-layout: fixed; } .checksums th:first-child { width: 22%; }
tr { break-inside: avoid; }
code { font: 12px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.identical { color: #0a5d2c; } .changed { color: #a40000; }
.added, .removed { color: #0b4a8f; }
td.identical, td.changed, td.added, td.removed { font-weight: 600; }
.note { background: #f4f4f4; border-left: 4px solid #808080; padding: .6rem 1rem; }
"""


def to_html(certificate: Certificate, *, name: str, sha256: str) -> str:
    """Returns the page as HTML.

    Args:
      certificate: content of the page.
      name: name of the JSON file.
      sha256: checksum of the JSON file.
    """
    parts = [
        "<h1>Certificate of a model change</h1>",
        _head(certificate, name, sha256),
        "<h2>Verdicts</h2>",
        _summary(certificate),
        _verdicts(certificate.verdicts),
        "<h2>Scope and limitations</h2>",
        _limits(),
        "<h2>Checksums (SHA-256)</h2>",
        *(_domain(verdict, certificate) for verdict in certificate.verdicts),
        "<h2>Build</h2>",
        _build(certificate),
        "<h2>Verification</h2>",
        _verification(name),
    ]
    body = "\n".join(parts)
    return (
        f"{_HEAD}{html.escape(name)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def is_page(content: bytes) -> bool:
    """Returns whether a file is the page of a certificate, by its content."""
    return content.startswith(_HEAD.encode())


def _head(certificate: Certificate, name: str, sha256: str) -> str:
    rows = [
        ("before", certificate.before.model_dir),
        ("after", certificate.after.model_dir),
        ("created", f"{certificate.created}, by {certificate.build.program}"),
        ("data", f"{name}, SHA-256 {sha256}"),
    ]
    return _table(rows)


def _summary(certificate: Certificate) -> str:
    changes = [verdict.change for verdict in certificate.verdicts]
    counts = [
        f"{changes.count(change)} {change}" for change in _MEANING if change in changes
    ]
    total = quantity(len(changes), "domain")
    return f"<p>{total}: {', '.join(counts)}.</p>"


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        text = _MEANING[verdict.change]
        if verdict.differences:
            text = f"Differs in: {', '.join(verdict.differences)}."
        rows.append(
            f"<tr><td>{html.escape(verdict.domain)}</td>"
            f'<td class="{verdict.change}">{verdict.change}</td>'
            f"<td>{html.escape(text)}</td></tr>"
        )
    head = "<tr><th>domain</th><th>verdict</th><th>meaning</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _limits() -> str:
    return """<p>The following were compared for each domain: the variables of the
trunk, which all domains of a model share; the variables that only this domain uses; the
settings that predictions depend on (preprocessing, patch size, classes, postprocessing,
network); the logits of three fixed, synthetic patches; and the label maps of the scans
listed below, if any. Logits and label maps were computed on the CPU, in the build
listed below.</p>
<p class="note">A domain is called identical if all of these are identical. This program
then computes the same function for the domain before and after the change, in the same
build on the same machine. This page is intended as evidence in a change-control file.
It makes no statement about the accuracy, safety or suitability of either model, or
about domains that were changed or added. It does not demonstrate conformity with a
standard or regulation, and does not replace verification or validation. It is not
signed: anyone who can write files can create such a page.</p>"""


def _domain(verdict: Verdict, certificate: Certificate) -> str:
    records = [
        model.by_name.get(verdict.domain)
        for model in (certificate.before, certificate.after)
    ]
    head = "<tr><th></th><th>before</th><th>after</th></tr>"
    rows = "".join(_checksum_rows(*records))
    title = (
        f"<h3>{html.escape(verdict.domain)}: "
        f'<span class="{verdict.change}">{verdict.change}</span></h3>'
    )
    return f'{title}<table class="checksums">{head}{rows}</table>'


def _checksum_rows(
    before: DomainRecord | None, after: DomainRecord | None
) -> Iterable[str]:
    one, other = (_checksums(record) for record in (before, after))
    for name in dict.fromkeys([*one, *other]):
        first, second = one.get(name, ""), other.get(name, "")
        differs = bool(first and second) and first != second and name != "checkpoint"
        kind = ' class="changed"' if differs else ""
        yield (
            f"<tr><td>{html.escape(name)}</td><td><code>{html.escape(first)}</code></td>"
            f"<td{kind}><code>{html.escape(second)}</code></td></tr>"
        )


def _checksums(record: DomainRecord | None) -> dict[str, str]:
    """Returns name -> checksum, in display order."""
    if record is None:
        return {}
    found = {
        "checkpoint": record.checkpoint,
        "trunk": record.trunk_sha256,
        "variables": record.variables_sha256,
        "settings": record.settings_sha256,
    }
    found |= {f"logits of {n}": value for n, value in record.logits_sha256.items()}
    for scan in record.scans:
        found[f"scan {scan.name}"] = scan.image_sha256
        found[f"label map of {scan.name}"] = scan.label_map_sha256
    return found


def _build(certificate: Certificate) -> str:
    build = certificate.build
    rows = [
        ("program", f"{build.program}, commit {build.commit or 'unknown'}"),
        ("Python", build.python),
        *build.libraries.items(),
        ("system", build.system),
        ("processor", f"{build.cpu}, {quantity(build.num_cores, 'core')} available"),
        ("TF_ENABLE_ONEDNN_OPTS", build.onednn or "not set"),
    ]
    return _table(rows)


def _verification(name: str) -> str:
    return f"""<p><code>{_CHECK.strip("`")}</code> recomputes the checksums of
{html.escape(name)}. Those of variables and settings are the same in every build. Those
of logits and label maps may differ with other builds of the libraries or on a different
processor; the command then reports "different build: not comparable bit for bit",
and whether both models yield the verdicts above when computed there.</p>"""


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"
