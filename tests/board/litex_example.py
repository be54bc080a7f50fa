"""The example SoC of examples/litex, as a module."""

import importlib.util

from tiptoe_verif.paths import ROOT

PATH = ROOT / "examples" / "litex" / "soc.py"
_SPEC = importlib.util.spec_from_file_location("litex_example_soc", PATH)
assert _SPEC is not None and _SPEC.loader is not None
EXAMPLE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(EXAMPLE)
