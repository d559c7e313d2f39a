"""``xds-server lint``: what the server would refuse, drop or warn of in files."""

from collections import Counter
from typing import Annotated

import typer

from xds_server.commands.output import Form, FormOption, show, silence_log
from xds_server.explain.words import count
from xds_server.offline import reading
from xds_server.offline.lint import Finding, Level
from xds_server.offline.lint import lint as lint_documents

EXAMPLES = """\b
Examples:
  xds-server lint k8s/
  kubectl kustomize k8s/overlays/production | xds-server lint -
  xds-server lint route.yaml policy.yaml --output json

\b
Exit codes:
  0  nothing was found but notes
  1  an error or a warning was found
  2  a file that is named does not exist
"""


def lint(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="YAML or JSON files, folders of them, or - for stdin."),
    ],
    output: FormOption = Form.TEXT,
) -> int:
    """Finds what the server would refuse, drop or warn of in files of Kubernetes objects."""
    silence_log()
    files = reading.find(paths)
    findings = lint_documents(reading.read(files))
    show(output, [_as_value(each) for each in findings], "\n".join(map(as_line, findings)))
    levels = Counter(each.level for each in findings)
    if output is Form.TEXT:
        numbers = ", ".join(count(levels[level], level.value) for level in Level)
        typer.echo(f"{numbers} in {count(len(files), 'file')}", err=True)
    return 1 if levels[Level.ERROR] or levels[Level.WARNING] else 0


def as_line(finding: Finding) -> str:
    """A finding for people and editors."""
    whose = f"{finding.object}: " if finding.object else ""
    return f"{finding.file}:{finding.line}: {finding.level.value}: {whose}{finding.message}"


def _as_value(finding: Finding) -> dict[str, str | int]:
    return {**finding._asdict(), "level": finding.level.value}
