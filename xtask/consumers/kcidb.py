"""kcidb-io on a report: it must be of its newest schema, and survive being upgraded to it."""

import collections
import json
import sys

import kcidb_io

with open(sys.argv[1], encoding="utf-8") as report:
    data = json.load(report)
kcidb_io.schema.LATEST.validate(data)
found = collections.Counter(test["status"] for test in data["tests"])
wanted = json.loads(sys.argv[2])
if found != wanted:
    sys.exit(f"{dict(found)}, expected {wanted}")
