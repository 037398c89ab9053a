"""Jenkins' schema of JUnit XML, as pytest tests itself with it, on a report."""

import sys

import xmlschema

mistakes = [f"{mistake.path}: {mistake.reason}" for mistake in xmlschema.XMLSchema(sys.argv[1]).iter_errors(sys.argv[2])]
if mistakes:
    sys.exit("\n".join(mistakes))
