"""A password is masked in whatever form a URL has it, and in what a driver says of that URL."""

from __future__ import annotations

import pytest

from operon.dsn import masked, passwords, without_passwords


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:hunter2@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:hunter2@h:5432,i:5433/d?x=1", "postgresql://u:***@h:5432,i:5433/d?x=1"),
        ("postgresql://:hunter2@h/d", "postgresql://:***@h/d"),
        ("postgresql://u:@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d", "postgresql://h/d"),
        (
            "postgresql://h:5432/d?application_name=a@b",
            "postgresql://h:***@b",
        ),  # hides too much, rather than too little
        ("postgresql://u:hunter2@[::1]:5432/d", "postgresql://u:***@[::1]:5432/d"),
        ("postgresql://u:hunter2@/d?host=/tmp&port=5432", "postgresql://u:***@/d?host=/tmp&port=5432"),
        ("postgresql://u:hun:ter2@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:hun@ter2@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:hun/ter2@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:hun?ter2@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:hun ter'2@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:hunter2@[broken/d", "postgresql://u:***@[broken/d"),
        ("postgresql://u:hunter2@h:no-port/d", "postgresql://u:***@h:no-port/d"),
        ("postgresql://h/d?password=hunter2", "postgresql://h/d?password=***"),
        (
            "postgresql://h/d?user=u&password=hun,ter2&sslmode=require",
            "postgresql://h/d?user=u&password=***&sslmode=require",
        ),
        ("postgresql://h/d?PASSWORD=hunter2", "postgresql://h/d?PASSWORD=***"),
        ("postgresql://h/d?p%61ssword=hunter2", "postgresql://h/d?p%61ssword=***"),
        ("postgresql://h/d?sslpassword=hunter2&sslmode=require", "postgresql://h/d?sslpassword=***&sslmode=require"),
        ("postgresql://h/d?passfile=/home/u/.pgpass", "postgresql://h/d?passfile=/home/u/.pgpass"),
        ("postgresql://u:hunter2@h/d?password=hunter2", "postgresql://u:***@h/d?password=***"),
        ("host=h password=hunter2 dbname=d", "host=h password=*** dbname=d"),
        ("host=h password = 'hun \\' ter2' dbname=d", "host=h password = *** dbname=d"),
        ("", ""),
        ("://", "://"),
    ],
)
def test_a_password_is_masked_in_every_form(url: str, expected: str) -> None:
    assert masked(url) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hun%40ter2@h/d", 'password "hun@ter2" is wrong, in postgresql://u:hun%40ter2@h/d'),
        ("postgresql://h/d?password=hun+ter2", "'hun ter2', 'hun+ter2'"),
        ("host=h password='hun ter2'", "invalid DSN: host=h password='hun ter2'"),
        ("postgresql://u:hun/ter2@h/d", "invalid port: 'hun/ter2'"),
    ],
)
def test_what_a_driver_says_is_told_without_the_password(url: str, said: str) -> None:
    told = without_passwords(said, url)

    assert "hun" not in told
    assert "***" in told


def test_a_url_without_a_password_changes_no_text() -> None:
    assert passwords("postgresql://u@h/d?sslmode=require") == []
    assert without_passwords("as it was", "postgresql://u@h/d") == "as it was"
