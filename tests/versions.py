"""What a test needs of the libraries that are installed; a release that cannot give it skips the test with its own reason."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version


def require(library: str, lowest: str, what: str) -> None:
    """Skip the test unless this release of the library, or a later one, is installed."""
    if Version(version(library)) < Version(lowest):
        pytest.skip(f"{library} {version(library)} {what}")


def require_add_adapter() -> None:
    """Skip the test where transformers asks for a later PEFT before it adds an adapter by itself."""
    from transformers.integrations import peft as integration
    from transformers.utils import check_peft_version

    try:
        check_peft_version(min_version=integration.MIN_PEFT_VERSION)
    except (ImportError, ValueError) as error:
        pytest.skip(f"transformers {version('transformers')}, add_adapter: {error}")


FUSED = ("transformers", "5.0", "keeps experts as modules of their own: there are no fused parameters to adapt")
TIED_COPIES = ("peft", "0.19", "does not tie trained copies that are both named in modules_to_save")
EXAMPLES = {"PI105": FUSED, "PI106": FUSED, "PI111": TIED_COPIES}
"""What the example programs of rules need beyond the lowest versions."""
