"""What several test files share."""

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """Small matrices: a second thread gains little, and on busy cores it makes a run ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
