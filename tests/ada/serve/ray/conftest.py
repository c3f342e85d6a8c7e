"""Everything here needs Ray."""

import pytest

pytest.importorskip("ray.serve")
