import asyncio
import pickle
import threading

import cloudpickle
import pytest

from prefect_dask_core.context import context, current_group, current_tags, group, tags


def test_a_variable_is_set_for_the_length_of_a_block():
    with context(color="blue"):
        assert context.color == "blue"
        assert "color" in context
    assert "color" not in context


def test_a_block_restores_what_was_before():
    with context(color="blue"):
        with context(color="red", size=3):
            assert (context.color, context.size) == ("red", 3)
        assert context.color == "blue"
        assert "size" not in context


def test_a_block_restores_after_an_exception():
    with pytest.raises(ZeroDivisionError), context(color="blue"):
        raise ZeroDivisionError
    assert "color" not in context


def test_one_block_can_be_entered_inside_itself():
    block = context(color="blue")
    with block, context(color="red"), block:
        assert context.color == "blue"
    assert "color" not in context


def test_variables_can_be_given_as_a_mapping():
    with context({"color": "blue", "size": 1}, size=2):
        assert (context.color, context.size) == ("blue", 2)


def test_get_has_a_default():
    assert context.get("color") is None
    assert context.get("color", "none") == "none"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("flow", r"inside a `with Flow\(\.\.\.\)` block"),
        ("parameters", "while a flow runs"),
        ("map_index", "in the body of a running task"),
        ("color", r"inside a `with context\(color=\.\.\.\)` block"),
    ],
)
def test_a_missing_variable_says_where_it_is_set(name, where):
    with pytest.raises(AttributeError, match=rf"context\.{name} is only set {where}"):
        getattr(context, name)


def test_a_variable_cannot_be_assigned():
    with pytest.raises(AttributeError, match=r"with context\(color=\.\.\.\)"):
        context.color = "blue"


def test_a_variable_cannot_hide_a_method():
    with pytest.raises(TypeError, match="cannot be called 'get'"):
        context(get=1)


@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_the_context_travels_as_its_name_without_any_value(library):
    with context(password="secret"):
        sent = library.dumps(context)
    assert b"secret" not in sent
    assert library.loads(sent) is context


def test_the_repr_shows_names_and_no_values():
    with context(password="secret"):
        assert repr(context) == "<context: password>"
    assert repr(context) == "<context: empty>"


def test_a_thread_does_not_see_the_block_of_another():
    seen = []
    with context(color="blue"):
        thread = threading.Thread(target=lambda: seen.append("color" in context))
        thread.start()
        thread.join()
    assert seen == [False]


def test_asyncio_tasks_do_not_see_each_others_blocks():
    async def read(value):
        with context(value=value):
            await asyncio.sleep(0)
            return context.value

    async def both():
        return await asyncio.gather(read(1), read(2))

    assert asyncio.run(both()) == [1, 2]


def test_nested_tags_add_up():
    with tags("a"):
        with tags("b", "c") as united:
            assert current_tags() == united == {"a", "b", "c"}
        assert current_tags() == {"a"}
    assert current_tags() == frozenset()


def test_a_tag_is_a_string():
    with pytest.raises(TypeError, match=r"takes strings, and got \['a'\]"):
        tags(["a"]).__enter__()


def test_the_inner_of_two_groups_counts_unless_it_is_appended():
    with group("outer"):
        with group("inner"):
            assert current_group() == "inner"
        with group("inner", append=True) as whole:
            assert current_group() == whole == "outer/inner"
        assert current_group() == "outer"
    with group("alone", append=True):
        assert current_group() == "alone"
    assert current_group() == ""


def test_a_group_is_a_string():
    with pytest.raises(TypeError, match="takes a string"), group(3):
        pass
