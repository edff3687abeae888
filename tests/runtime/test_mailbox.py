"""What a live workflow knows of its mailbox: nothing is taken twice, nothing is missed, and order is kept."""

from __future__ import annotations

from uuid import UUID

from operon.database.batch import Batch
from operon.runtime.mailbox import LOOK_MAX, Mailbox, Message


def mailbox(*, empty: bool = True) -> Mailbox:
    return Mailbox(UUID(int=1), empty=empty)


def letters(*sequences: int) -> list[Message]:
    return [Message(sequence, b"%d" % sequence) for sequence in sequences]


def durable() -> Batch:
    batch = Batch()
    batch.done = True
    return batch


def take(box: Mailbox, *topics: str | None) -> int | None:
    taken = box.take(topics)
    return None if taken is None else taken[1].sequence


def test_a_workflow_that_has_just_begun_knows_that_nothing_is_there() -> None:
    box = mailbox()

    assert box.knows(["a", None])
    assert take(box, "a", None) is None


def test_one_that_was_brought_back_has_to_look() -> None:
    box = mailbox(empty=False)

    assert not box.knows(["a"])

    box.found("a", [], box.look())

    assert box.knows(["a"])
    assert not box.knows(["a", "b"])


def test_a_ring_means_to_look_again() -> None:
    box = mailbox()

    box.ring()

    assert not box.knows(["a"])


def test_a_ring_during_a_look_means_to_look_once_more() -> None:
    box = mailbox(empty=False)

    rings = box.look()
    box.ring()
    box.found("a", [], rings)

    assert not box.knows(["a"])


def test_the_oldest_of_several_topics_is_taken_first() -> None:
    box = mailbox(empty=False)
    rings = box.look()
    box.found("a", letters(2, 5), rings)
    box.found(None, letters(1, 7), rings)

    taken = [box.take(["a", None]) for _ in range(5)]

    assert [(topic, message.sequence) for topic, message in filter(None, taken)] == [
        (None, 1),
        ("a", 2),
        ("a", 5),
        (None, 7),
    ]
    assert taken[-1] is None


def test_a_message_that_comes_along_with_its_ring_needs_no_look() -> None:
    box = mailbox()

    box.push("a", 3, b"3")

    assert box.knows(["a"])
    assert take(box, "a") == 3


def test_a_message_that_a_look_has_found_is_not_pushed_a_second_time() -> None:
    box = mailbox(empty=False)
    box.found("a", letters(3), box.look())

    box.push("a", 3, b"3")

    assert [take(box, "a"), take(box, "a")] == [3, None]


def test_a_message_that_was_taken_and_is_not_durably_gone_is_not_taken_again() -> None:
    box = mailbox(empty=False)
    box.found("a", letters(3), box.look())
    take(box, "a")
    box.taken(3, Batch())

    box.found("a", letters(3, 4), box.look())
    box.push("a", 3, b"3")

    assert [take(box, "a"), take(box, "a")] == [4, None]


def test_a_message_that_is_gone_by_the_time_that_a_look_returns_is_not_taken_again() -> None:
    box = mailbox(empty=False)
    box.found("a", letters(3), box.look())
    take(box, "a")
    batch = Batch()
    box.taken(3, batch)

    rings = box.look()
    batch.done = True
    box.found("a", letters(3, 4), rings)

    assert [take(box, "a"), take(box, "a")] == [4, None]


def test_a_message_that_comes_during_a_look_is_not_lost() -> None:
    box = mailbox(empty=False)

    rings = box.look()
    box.push("a", 3, b"3")
    box.found("a", [], rings)

    assert not box.knows(["a"])


def test_messages_that_were_received_durably_are_forgotten() -> None:
    box = mailbox()

    for sequence in range(10 * LOOK_MAX):
        box.push("a", sequence, b"")
        take(box, "a")
        box.taken(sequence, durable())

    assert box.in_flight < LOOK_MAX


def test_a_full_window_is_emptied_before_the_next_look() -> None:
    box = mailbox(empty=False)
    box.found("a", letters(*range(LOOK_MAX)), box.look())

    looks_needed = list[bool]()
    for _ in range(LOOK_MAX):
        looks_needed.append(not box.knows(["a"]))
        take(box, "a")

    assert not any(looks_needed)
    assert not box.knows(["a"])


def test_a_look_that_finds_the_rest_knows_everything() -> None:
    box = mailbox(empty=False)
    box.found("a", letters(*range(LOOK_MAX)), box.look())
    while take(box, "a") is not None:
        pass

    box.found("a", letters(LOOK_MAX), box.look())

    assert take(box, "a") == LOOK_MAX
    assert box.knows(["a"])


def test_a_window_full_of_what_is_in_flight_means_that_there_may_be_more() -> None:
    box = mailbox(empty=False)
    box.found("a", letters(*range(LOOK_MAX)), box.look())
    for sequence in range(LOOK_MAX):
        take(box, "a")
        box.taken(sequence, Batch())

    box.found("a", letters(*range(LOOK_MAX)), box.look())

    assert take(box, "a") is None
    assert not box.knows(["a"])
