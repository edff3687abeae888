-- How an executor finds out whether a batch of it landed whose acknowledgement was lost.

-- The batches that landed, for as long as somebody may ask; and those that have not, and never will. Not a number in the
-- executor's row: that would be one more version of it for each batch, and a transaction that stays open somewhere keeps
-- them all. After an hour each flush would wade through a million.
create table operon.batches (
    executor bigint not null,
    batch bigint not null,
    lost boolean not null default false, -- it had not landed when its executor asked, and was sent anew
    answers text, -- what became of its messages, when one of them was not simply delivered
    primary key (executor, batch)
);
alter table operon.executors drop column if exists batch, drop column if exists answers, drop column if exists lost_batch;

-- Did it land? A flush that is still under way on a lost connection is waited for. One that has not landed never will: it
-- may be on its way to the server, and what it carries is about to be sent anew.
create function operon.landed(me bigint, number bigint, out landed boolean, out answers text) language plpgsql
set search_path = '' as $$
begin
    insert into operon.batches (executor, batch, lost) values (me, number, true) on conflict (executor, batch) do nothing;
    select not b.lost, b.answers into landed, answers
    from operon.batches b where b.executor = me and b.batch = number;
end
$$;
