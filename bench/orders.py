"""The table that the transactions of every system write to, one row for each."""

SCHEMA = """
create table if not exists orders (
    id bigint generated always as identity primary key, workflow_id uuid not null, item text not null
)
"""
