"""The time of a product: its arithmetic or its traffic."""

from ada.cost.hardware import Hardware
from ada.cost.products import Product
from ada.cost.roofline import seconds

DEVICE = Hardware("toy", bandwidth=100.0, flops=1000.0, memory=1e9, source="")


def test_seconds_of_a_product_bound_by_arithmetic():
    assert seconds(Product(1000, 10), DEVICE) == 1.0, "moving 20 bytes takes 0.2 s"


def test_seconds_of_a_product_bound_by_memory():
    assert seconds(Product(10, 100), DEVICE) == 2.0, "the arithmetic takes 0.01 s"
