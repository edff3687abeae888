-- Batches up to this number whose acknowledgement was lost, and that had not landed when the executor asked: it has sent
-- what they carried anew, so they must not land any more, however late what was sent of them reaches the server.
alter table operon.executors add column lost_batch bigint not null default 0;
