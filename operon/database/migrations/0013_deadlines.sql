-- Workflows that nobody has in memory when their time is over: found without a look at those whose time is not.
create index workflows_deadline on operon.workflows (deadline) where status = 0 and deadline is not null;
