-- How long the session lock of an executor has to be free before its peers may conclude that its process is gone. It says
-- so itself: until then it calls no communicator without knowing that it held the lock a moment ago.
alter table operon.executors add column grace_seconds float8 not null default 0.75;
