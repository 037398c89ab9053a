"""The schema of SARIF on a report."""

import json
import sys

import jsonschema

with open(sys.argv[1], encoding="utf-8") as schema, open(sys.argv[2], encoding="utf-8") as report:
    validator = jsonschema.Draft7Validator(json.load(schema))
    mistakes = [f"{mistake.json_path}: {mistake.message}" for mistake in validator.iter_errors(json.load(report))]
if mistakes:
    sys.exit("\n".join(mistakes))
