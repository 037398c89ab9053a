"""The kernel's own parser of KTAP on a report: it must find no mistake, and these numbers."""

import sys

sys.path.insert(0, sys.argv[1])
import kunit_parser  # noqa: E402

with open(sys.argv[2], encoding="utf-8") as report:
    test = kunit_parser.parse_run_tests(report.read().splitlines())
counts = test.counts
found = [counts.passed, counts.failed, counts.crashed, counts.skipped, counts.errors]
wanted = [int(number) for number in sys.argv[3:]]
if found != wanted:
    sys.exit(f"passed, failed, crashed, skipped, errors: {found}, expected {wanted}")
