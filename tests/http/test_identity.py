"""Which workflow a request means."""

from __future__ import annotations

from uuid import UUID

import pytest

from operon.http.identity import Identity, fresh, from_key, identify
from operon.http.refusals import Complaint

ONE = UUID("8e03978e-40d5-43dd-bc93-6894a57f9324")
OTHER = UUID("9e03978e-40d5-43dd-bc93-6894a57f9324")


def read(uuids: list[str], keys: list[str]) -> tuple[Identity, list[tuple[str, str]]]:
    complaints: list[Complaint] = []
    identity = identify(uuids, keys, complaints)
    return identity, [(complaint.location, complaint.name) for complaint in complaints]


def test_a_uuid_is_the_identity_under_either_name() -> None:
    by_uuid, _ = read([str(ONE)], [])
    by_key, _ = read([], [str(ONE)])

    assert by_uuid.of_operation("checkout", "alice") == by_key.of_operation("checkout", "bob") == ONE
    assert by_uuid.key == by_key.key == str(ONE)


def test_nothing_given_is_no_identity() -> None:
    identity, complaints = read([], [])

    assert (identity.of_operation("checkout", None), identity.key, complaints) == (None, None, [])


def test_a_key_is_the_same_workflow_for_the_same_operation_and_user_only() -> None:
    triples = [
        ("checkout", None, "a"),
        ("checkout", "None", "a"),
        ("checkout", "", "a"),
        ("checkout", "alice", "a"),
        ("checkout", "alic", "ea"),
        ("checkouta", "lice", "a"),
        ("refund", "alice", "a"),
        ("checkout", "alice", "b"),
    ]

    assert len({from_key(*triple) for triple in triples}) == len(triples)
    assert from_key("checkout", "alice", "a") == from_key("checkout", "alice", "a")


def test_a_derived_uuid_has_version_8_and_a_stable_value() -> None:
    derived = from_key("checkout", "alice", "a")

    assert (derived.version, derived.variant) == (8, "specified in RFC 4122")
    # Written down, because clients keep keys for longer than a release lives.
    assert derived == UUID("029a30e6-b9c6-8b6e-a04b-fba04a1f0075")


def test_a_fresh_uuid_has_version_7_and_follows_the_clock() -> None:
    first, second = fresh(), fresh()

    assert first.version == second.version == 7
    assert first != second
    assert first.int >> 80 <= second.int >> 80


def test_a_quoted_key_is_the_key_without_quotes() -> None:
    quoted, _ = read([], ['"a\\"b"'])
    bare, _ = read([], ['a"b'])

    assert quoted == bare


@pytest.mark.parametrize("given", ["", "nonsense", f"{{{ONE}}}", ONE.hex, f"urn:uuid:{ONE}", f"{ONE}\n", f" {ONE}"])
def test_a_malformed_uuid_is_refused(given: str) -> None:
    assert read([given], []) == (Identity(), [("header", "operon-workflowuuid")])


@pytest.mark.parametrize("given", ["", '""', "é", "a\tb", "a\nb", "x" * 201])
def test_a_malformed_key_is_refused(given: str) -> None:
    assert read([], [given]) == (Identity(), [("header", "Idempotency-Key")])


def test_both_headers_may_say_the_same_and_not_two_things() -> None:
    same, complaints = read([str(ONE)], [str(ONE).upper()])

    assert (same.of_operation("checkout", None), complaints) == (ONE, [])
    assert read([str(ONE)], [str(OTHER)]) == (Identity(), [("header", "Idempotency-Key")])
    assert read([str(ONE)], ["a key"]) == (Identity(), [("header", "Idempotency-Key")])


def test_a_header_given_twice_may_not_say_two_things() -> None:
    assert read([str(ONE), str(ONE)], ["a", "a"])[1] == [("header", "Idempotency-Key")]
    assert read([str(ONE), str(ONE)], [])[1] == []
    assert read([str(ONE), str(OTHER)], [])[1] == [("header", "operon-workflowuuid")]
    assert read([], ["a", "b"])[1] == [("header", "Idempotency-Key")]
