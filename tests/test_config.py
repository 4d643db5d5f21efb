"""Configs in the library: values, conditions, all or nothing, history, the way back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fan import (
    Aborted,
    AlreadyExists,
    Configs,
    InvalidArgument,
    NotFound,
    Unavailable,
    Write,
)
from fan.config_values import merge
from fan.stores.base import RETENTION, Change, Plan, Store
from tests.configs import PATIENCE, STORES, another, make_store


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, private: Path) -> Iterator[Store]:
    with make_store(request, private) as store:
        yield store


@pytest.fixture
def config(store: Store) -> Iterator[Configs]:
    config = Configs(lambda: store, live=False)
    yield config
    config.close()


def gen(store: Store) -> int:
    return store.head(deadline=time.monotonic() + PATIENCE).gen


@pytest.mark.parametrize(
    "value", ["", "dark", 0, 1.5, True, None, [], {"a": [1, {"b": None}]}, "é\n"]
)
def test_a_value_comes_back_as_it_was_set(config: Configs, value: Any) -> None:
    config.set("k", value)
    assert config["k"] == value
    assert type(config["k"]) is type(value)


@pytest.mark.parametrize(
    "key", ["a/b/c", "50%", "with space", "ключ/🎈", "-k", "a%2Fb", "..", "a//b"]
)
def test_a_key_may_be_any_text(config: Configs, key: str) -> None:
    config.set(key, key)
    assert [entry.key for entry in config.list()] == [key]
    assert config[key] == key


@pytest.mark.parametrize("key", ["", "a/", "a\nb", "a\0b", "\x9b", "k" * 1025, "$schemas"])
def test_what_is_no_key_is_refused(config: Configs, key: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        config.set(key, 1)
    assert caught.value.reason == "bad_key"


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], object(), {1: object()}])
def test_what_is_no_json_is_refused(config: Configs, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        config.set("k", value)
    assert caught.value.reason == "bad_value"


def test_a_value_of_a_megabyte_is_refused_with_a_sentence(config: Configs, store: Store) -> None:
    with pytest.raises(InvalidArgument, match="config k is 1000002 bytes: the registry takes"):
        config.set("k", "x" * 1_000_000)
    assert gen(store) == 0


def test_a_missing_config_is_not_found_and_has_a_default(config: Configs) -> None:
    with pytest.raises(NotFound, match="no such config: k"):
        config["k"]
    assert config.get("k") is None
    assert config.get("k", 5) == 5
    assert "k" not in config


def test_an_equal_value_is_no_change(config: Configs, store: Store) -> None:
    config.set("k", {"a": 1, "b": 2})
    done = config.set("k", {"b": 2, "a": 1})
    assert (done.is_changed, done.gen, gen(store)) == (False, 1, 1)


def test_of_racing_compare_and_sets_exactly_one_wins(config: Configs, store: Store) -> None:
    config.set("k", "start")
    rev = config.entry("k").rev
    won: list[int] = []
    lost: list[str] = []
    gate = threading.Barrier(8)

    def race(number: int) -> None:
        with another(store) as mine:
            gate.wait(PATIENCE)
            try:
                Configs(lambda: mine, live=False).set("k", number, if_rev=rev)
            except Aborted as exc:
                lost.append(exc.reason)
            else:
                won.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(won) == 1
    assert lost == ["conflict"] * 7
    assert config["k"] == won[0]


def test_racing_patches_of_different_members_all_stay(config: Configs, store: Store) -> None:
    config.set("k", {})
    gate = threading.Barrier(6)

    def patch(number: int) -> None:
        with another(store) as mine:
            gate.wait(PATIENCE)
            Configs(lambda: mine, live=False, timeout=PATIENCE).patch("k", {f"m{number}": number})

    threads = [threading.Thread(target=patch, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert config["k"] == {f"m{n}": n for n in range(6)}


def test_create_refuses_what_is_there_and_takes_what_was_deleted(config: Configs) -> None:
    config.set("k", 1, create=True)
    with pytest.raises(AlreadyExists) as caught:
        config.set("k", 2, create=True)
    assert caught.value.executed == "no"
    config.delete("k")
    config.set("k", 3, create=True)
    assert config["k"] == 3


def test_a_revision_of_a_config_that_never_was_is_a_conflict_in_words(config: Configs) -> None:
    with pytest.raises(Aborted, match="there is no config k: revision 3 of it was expected") as no:
        config.set("k", 1, if_rev=3)
    assert no.value.reason == "conflict"


def test_if_gen_refuses_when_anything_changed(config: Configs) -> None:
    config.set("other", 1)
    with pytest.raises(Aborted) as caught:
        config.set("k", 1, how=Write(if_gen=0))
    assert caught.value.reason == "conflict"
    config.set("k", 1, how=Write(if_gen=1))


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [  # the cases of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_patch_is_merged_as_the_rfc_says(target: Any, patch: Any, merged: Any) -> None:
    assert merge(target, patch) == merged


def test_apply_is_one_generation(config: Configs, store: Store) -> None:
    done = config.apply({"a": 1, "b": 2, "c": 3})
    assert (done.gen, gen(store)) == (1, 1)
    assert [entry.rev for entry in config.list()] == [1, 1, 1]


def test_apply_with_one_invalid_value_changes_nothing(config: Configs, store: Store) -> None:
    config.set("c", 1, schema={"type": "integer"})
    with pytest.raises(InvalidArgument, match=r"config c: \$: it must be of type integer"):
        config.apply({"a": 1, "b": 2, "c": "three"})
    assert gen(store) == 1
    assert [entry.key for entry in config.list()] == ["c"]


def test_a_value_that_does_not_fit_is_refused_with_its_path_and_not_its_text(
    config: Configs,
) -> None:
    schema = {
        "type": "object",
        "properties": {"db": {"properties": {"password": {"type": "string", "minLength": 9}}}},
    }
    config.set("k", {}, schema=schema)
    with pytest.raises(InvalidArgument) as caught:
        config.set("k", {"db": {"password": "hunter2"}})
    assert caught.value.message == 'config k: $.db.password: it must fit {"minLength":9}'
    assert caught.value.details["path"] == "$.db.password"


def test_a_patch_and_a_rollback_must_fit_the_schema_too(config: Configs) -> None:
    config.set("k", {"n": "text"})
    config.set("k", {"n": 1}, schema={"properties": {"n": {"type": "integer"}}})
    with pytest.raises(InvalidArgument):
        config.patch("k", {"n": "x"})
    with pytest.raises(InvalidArgument):
        config.rollback("k")
    assert config["k"] == {"n": 1}


def test_a_schema_that_the_value_in_force_does_not_fit_is_refused(config: Configs) -> None:
    config.set("k", "text")
    with pytest.raises(InvalidArgument):
        config.apply({}, schemas={"k": {"type": "integer"}})
    assert config.schema("k") is None


@pytest.mark.parametrize("schema", [{"type": "strin"}, 5, {"$ref": "#/$defs/none"}, {"$ref": "#"}])
def test_what_is_no_schema_is_refused(config: Configs, schema: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        config.set("k", {}, schema=schema)
    assert caught.value.reason == "bad_schema"


def test_a_schema_fetches_nothing_from_the_network(config: Configs) -> None:
    with pytest.raises(InvalidArgument, match="which is not in it"):
        config.set("k", {}, schema={"$ref": "http://127.0.0.1:9/schema.json"})


def test_a_deleted_config_is_missing_and_its_history_stays(config: Configs) -> None:
    config.set("k", 1)
    assert config.delete("k").is_changed
    assert not config.delete("k").is_changed
    with pytest.raises(NotFound, match="deleted in generation 2"):
        config.entry("k")
    assert config.entry("k", gen=1).value == 1
    assert [(e.gen, e.verb, e.is_deleted) for e in config.history("k")] == [
        (2, "delete", True),
        (1, "set", False),
    ]
    with pytest.raises(NotFound):
        config.delete("never")


def test_rollback_walks_back_and_ends(config: Configs) -> None:
    for value in ("one", "two", "three"):
        config.set("k", value)
    config.rollback("k")
    assert config["k"] == "two"
    config.rollback("k")
    assert config["k"] == "one"
    with pytest.raises(NotFound) as caught:
        config.rollback("k")
    assert caught.value.reason == "nothing_to_undo"


def test_what_is_set_after_a_rollback_has_the_revision_that_it_replaced_as_its_parent(
    config: Configs,
) -> None:
    config.set("k", "one")
    config.set("k", "two")
    config.rollback("k")
    config.set("k", "three")
    config.rollback("k")
    assert config["k"] == "one"


def test_rollback_brings_a_deleted_config_back(config: Configs) -> None:
    config.set("k", 1)
    config.delete("k")
    config.rollback("k")
    assert config["k"] == 1


def test_rollback_to_a_revision(config: Configs) -> None:
    for value in ("one", "two", "three"):
        config.set("k", value)
    assert config.rollback("k", 1).is_changed
    assert config["k"] == "one"
    assert not config.rollback("k", 1).is_changed
    with pytest.raises(NotFound) as caught:
        config.rollback("k", 99)
    assert caught.value.reason == "no_such_revision"


def test_a_trimmed_parent_is_compacted(config: Configs, store: Store) -> None:
    config.set("k", "one")
    config.set("k", "two")
    fill(store, RETENTION + 2)
    with pytest.raises(NotFound) as caught:
        config.rollback("k")
    assert caught.value.reason == "compacted"
    assert [event.value for event in config.history("k")] == ["two"]


def fill(store: Store, count: int) -> None:
    """Make generations of nothing that is looked at."""
    for number in range(count):
        plan = Plan(changes=(Change(object="route/x", body=str(number).encode()),), verb="switch")
        store.commit(plan, deadline=time.monotonic() + PATIENCE)


def test_the_history_says_who_and_why(config: Configs) -> None:
    config.set("k", 1, how=Write(message="because"))
    (event,) = config.history("k")
    assert (event.message, event.verb, event.rev) == ("because", "set", 1)
    assert event.who
    assert event.host
    assert event.at.endswith("Z")


def test_diff_takes_the_one_in_force_and_the_one_before(config: Configs) -> None:
    for value in ("one", "two", "three"):
        config.set("k", value)
    assert [side.value for side in config.diff("k")] == ["two", "three"]
    assert [side.value for side in config.diff("k", 1)] == ["one", "three"]
    assert [side.value for side in config.diff("k", 1, 2)] == ["one", "two"]


@pytest.mark.parametrize("act", ["set", "patch", "apply", "delete", "rollback"])
def test_an_op_is_never_applied_twice(config: Configs, store: Store, act: str) -> None:
    config.set("k", {"n": 1})
    config.set("k", {"n": 2})
    ops: list[str] = []

    def go(how: Write) -> Any:
        if act == "set":
            return config.set("k", {"n": 3}, how=how)
        if act == "patch":
            return config.patch("k", {"m": 3}, how=how)
        if act == "apply":
            return config.apply({"k": 3, "j": 4}, how=how)
        if act == "delete":
            return config.delete("k", how=how)
        return config.rollback("k", how=how)

    first = go(Write(announce=ops.append))
    assert ops == [first.op]
    again = go(Write(op=first.op))
    assert (again.gen, again.was_applied, gen(store)) == (first.gen, True, first.gen)
    config.set("k", "something else")
    assert go(Write(op=first.op)).was_applied
    assert config["k"] == "something else"


def test_an_op_is_known_while_the_history_has_it_and_unknown_after(
    config: Configs, store: Store
) -> None:
    config.set("k", 1)
    first = config.set("k", 2)
    fill(store, RETENTION)
    with pytest.raises(Unavailable) as caught:
        config.set("k", 2, how=Write(op=first.op))
    assert (caught.value.reason, caught.value.executed) == ("outcome_unknown", "maybe")
    assert config.entry("k").rev == 2


def test_an_op_is_good_for_one_change_only(config: Configs) -> None:
    first = config.set("k", 1)
    with pytest.raises(AlreadyExists) as caught:
        config.set("k", 2, how=Write(op=first.op))
    assert caught.value.reason == "duplicate_id"


def test_a_dry_run_decides_and_changes_nothing(config: Configs, store: Store) -> None:
    config.set("k", 1, schema={"type": "integer"})
    dry = Write(dry_run=True)
    (step,) = config.set("k", 2, how=dry).steps
    assert (step.object, step.before, step.after) == ("config/k", b"1", b"2")
    assert not config.set("k", 1, how=dry).is_changed
    with pytest.raises(InvalidArgument):
        config.set("k", "x", how=dry)
    with pytest.raises(Aborted):
        config.set("k", 2, if_rev=7, how=dry)
    assert gen(store) == 1


def test_one_get_reads_one_object_however_many_there_are(store: Store) -> None:
    asked: list[tuple[object, object]] = []

    class Counting:
        def read(self, objects: Any = (), *, prefix: Any = None, **how: Any) -> Any:
            asked.append((tuple(objects), prefix))
            return store.read(objects, prefix=prefix, **how)

    config = Configs(Counting, live=False)  # type: ignore[arg-type]
    Configs(lambda: store, live=False).set("k", 1)
    assert config.entry("k").value == 1
    assert asked == [(("config/k",), None)]
