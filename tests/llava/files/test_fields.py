"""Fields of users' records: of their type, or an error that names record, field and value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import DataError
from llava.files.fields import id_field, list_of, optional_field, required_field, typed

JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([1]) | st.just({"a": 1})


def test_missing_field_is_named_with_those_that_are_there():
    with pytest.raises(DataError, match=r"^line 3 lacks 'text'; it has 'image'$"):
        required_field({"image": "a.png"}, "text", str, "line 3")


@pytest.mark.parametrize("value", [None, 7, ["a"], {"b": 1}, True])
def test_field_of_another_type_is_named_with_its_value(value):
    with pytest.raises(DataError) as raised:
        required_field({"text": value}, "text", str, "line 3")
    assert str(raised.value) == f"line 3: 'text' is {value!r}; expected a text"


@given(JSON, st.sampled_from([str, int, float, bool, list, dict]))
def test_typed_takes_values_of_the_json_type_alone(value, kind):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    finite = number and value == value and abs(value) != float("inf")
    right = {float: finite, int: number and isinstance(value, int)}.get(kind, isinstance(value, kind))
    if right:
        assert typed(value, kind, "x") is value
    else:
        with pytest.raises(DataError, match=r"^x is "):
            typed(value, kind, "x")


def test_integer_beyond_every_float_is_no_number():
    with pytest.raises(DataError, match="expected a finite number"):
        typed(10**400, float, "x")


def test_optional_field_is_none_where_it_is_null_or_not_there():
    assert optional_field({"a": None}, "a", str, "x") is None and optional_field({}, "a", str, "x") is None
    with pytest.raises(DataError, match="'a' is 1; expected a text"):
        optional_field({"a": 1}, "a", str, "x")


@pytest.mark.parametrize("value", [None, True, 1.0, ["1"], {}])
def test_ids_are_texts_or_integers(value):
    assert id_field({"id": 1}, "id", "x") == 1 and id_field({"id": "1"}, "id", "x") == "1"
    with pytest.raises(DataError, match="expected an id, a text or an integer"):
        id_field({"id": value}, "id", "x")


def test_list_names_the_item_that_is_of_another_type():
    with pytest.raises(DataError, match="answers, item 2 is None; expected a text"):
        list_of(["a", None], str, "answers")


def test_record_that_is_no_object_is_refused():
    with pytest.raises(DataError, match=r"line 1 is \['text'\]; expected an object"):
        required_field(["text"], "text", str, "line 1")
