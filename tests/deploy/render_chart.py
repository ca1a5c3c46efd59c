"""Run in the Python that has Helm: renders or lints a chart with the values on stdin, as JSON."""

from __future__ import annotations

import json
import sys

import helm_python

command, chart = sys.argv[1:]
values = json.load(sys.stdin)
if command == "lint":
    report = helm_python.lint(chart, values, strict=True, kube_version="v1.35.0")
    answer = report["errors"] + [m for m in report["messages"] if m["severity"] > 1]
    json.dump(answer, sys.stdout)
else:
    try:
        loaded = helm_python.Chart.load(chart)
        loaded.validate_schema(loaded.merge_values(values))
        rendered = loaded.render(values, name="fleet", namespace="models")
        json.dump({"rendered": rendered}, sys.stdout)
    except helm_python.HelmError as error:
        json.dump({"error": str(error)}, sys.stdout)
