"""The trace on log records."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest

from fan.context import Context
from fan.errors import NotFound
from fan.message import Request
from fan.middleware.logs import AccessLog, Logs

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(autouse=True)
def _factory():
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def records():
    """A foreign library's logger, and what it wrote, formatted."""
    logger, lines = logging.getLogger("foreign"), []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    handler = Lines()
    handler.setFormatter(logging.Formatter("%(trace_id)s %(service)s %(message)s"))
    logger.addHandler(handler)
    yield logger, lines
    logger.removeHandler(handler)


def serving():
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    request = Request(id="1", service="shop", method="buy", timeout_ms=9, traceparent=parent)
    return Context.at(None, "shop", "buy", request=request)


def record():
    return logging.getLogger("foreign").makeRecord("foreign", 30, "f", 1, "m", (), None)


def test_a_foreign_librarys_line_carries_the_trace(records):
    logger, lines = records
    logs = Logs()
    with serving():
        logger.warning("hello")
    logger.warning("outside")
    logs.close()
    assert lines == [f"{TRACE} shop hello", "  outside"]


def test_the_span_is_the_handlers_own():
    logs, context = Logs(), serving()
    with context:
        assert record().span_id == context.span_id != "00f067aa0ba902b7"
    logs.close()


def test_a_field_that_foreign_code_sets_is_its_own(records):
    logger, lines = records
    logs = Logs()
    logger.warning("x", extra={"service": "theirs", "trace_id": "t"})
    logs.close()
    assert lines == ["t theirs x"]


def test_other_attributes_are_protected_as_before(records):
    logs = Logs()
    with pytest.raises(KeyError, match="overwrite"):
        records[0].warning("x", extra={"lineno": 1})
    logs.close()


def test_a_previous_factory_still_works():
    class Mine(logging.LogRecord):
        pass

    logging.setLogRecordFactory(Mine)
    logs = Logs()
    assert isinstance(record(), Mine)
    logs.close()
    assert logging.getLogRecordFactory() is Mine


def test_several_apps_share_one_wrapper():
    plain = logging.getLogRecordFactory()
    one, wrapper = Logs(), logging.getLogRecordFactory()
    two = Logs()
    assert logging.getLogRecordFactory() is wrapper
    one.close()
    one.close()
    assert hasattr(record(), "trace_id")
    two.close()
    assert logging.getLogRecordFactory() is plain


def test_a_wrapper_around_ours_survives_the_close():
    logs = Logs()
    ours = logging.getLogRecordFactory()

    def theirs(*args, **kwargs):
        return ours(*args, **kwargs)

    logging.setLogRecordFactory(theirs)
    logs.close()
    assert logging.getLogRecordFactory() is theirs
    assert not hasattr(record(), "trace_id")


def test_records_can_be_copied_and_pickled():
    logs = Logs()
    with serving():
        made = record()
    logs.close()
    assert copy.copy(made).trace_id == TRACE
    data = pickle.dumps(made)
    assert b"fan" not in data
    assert pickle.loads(data).trace_id == TRACE


def test_the_access_log_tells_target_outcome_and_caller(clock, callee, make_inbound, caplog):
    caplog.set_level(logging.INFO)
    layer = AccessLog(clock=lambda: 1.0)
    clock.drive(layer.on_request(make_inbound(caller="web"), callee()))
    inner = callee(NotFound("x", reason="no_such_thing"))
    with pytest.raises(NotFound):
        clock.drive(layer.on_request(make_inbound(), inner))
    assert caplog.messages == [
        "shop.buy ok 0.0 ms caller=web attempt=0",
        "shop.buy not_found/no_such_thing 0.0 ms caller=- attempt=0",
    ]


def test_the_access_log_works_beside_the_fields(clock, callee, make_inbound, caplog):
    caplog.set_level(logging.INFO)
    logs, inbound = Logs(), make_inbound()
    clock.drive(AccessLog().on_request(inbound, callee()))
    logs.close()
    assert caplog.records[0].trace_id == inbound.context.trace_id
