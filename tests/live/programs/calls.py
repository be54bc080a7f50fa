"""Socket calls of many kinds against the peer of test_run_programs.py; prints what came of them as JSON.

The test runs it on the kernel's TCP and on the engine and compares.

Usage: calls.py HOST PORT [SCENARIO...]; HOST4 and HOST6 are the addresses that the peer has too.
"""

import json
import signal
import sys

from scenarios import both_versions, connections, descriptors, listeners, options, surroundings
from scenarios.common import SCENARIOS

MODULES = connections, descriptors, listeners, options, surroundings, both_versions
"""Their scenarios are in the table, in this order."""


def main():
    signal.alarm(240)
    for name in sys.argv[3:] or SCENARIOS:
        try:
            result = SCENARIOS[name]()
        except Exception as error:  # the comparison shows it
            result = f"{type(error).__name__}: {error}"
        print(json.dumps([name, result]), flush=True)


main()
