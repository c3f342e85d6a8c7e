"""Which addresses a controller accepts for workers."""

import pytest

from llava.errors import OptionError
from llava.serve.routing.worker_address import checked_address


@pytest.mark.parametrize(
    ("address", "form"),
    [
        ("http://localhost:21002", "http://localhost:21002"),
        ("http://localhost:21002/", "http://localhost:21002"),
        ("https://127.0.0.1:1", "https://127.0.0.1:1"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:21002", "http://[::1]:21002"),
    ],
)
def test_checked_address_of_this_machine_is_normalised(address, form) -> None:
    assert checked_address(address, loopback_only=True) == form


@pytest.mark.parametrize(
    "address",
    ["http://10.0.0.7:21002", "https://worker-3.example.org", "http://[2001:db8::1]:80", "http://0x0a000007:21002"],
)
def test_checked_address_of_another_machine_needs_a_token(address) -> None:
    assert checked_address(address)
    with pytest.raises(OptionError, match="--registration-token"):
        checked_address(address, loopback_only=True)


BAD = """
localhost:21002 ftp://localhost:21002 file:///etc/passwd http:// http://:21002 http://localhost:0
http://localhost:99999 http://localhost:x http://user@localhost:1 http://user:word@localhost:1 http://localhost:1/path
http://localhost:1?query http://localhost:1#part http://169.254.169.254 http://[fe80::1]:80 http://0.0.0.0:21002
http://[::]:21002 http://224.0.0.1 http://[::ffff:169.254.169.254] http://0xa9fea9fe http://169.254.43518 http://0251.0376.0251.0376
http://2852039166 //localhost:21002 javascript:alert(1) http://[::1
""".split()


@pytest.mark.parametrize("address", [*BAD, "", " ", "http://local host:1", "http://localhost:1\n", "http://löcal:1"])
def test_checked_address_that_no_worker_has_is_refused(address) -> None:
    with pytest.raises(OptionError, match="worker's address is"):
        checked_address(address)
