-- name: count_crash
-- How many of its name crashed of late; and when one is tried, if this crash suspends it.
select in_all, tried_at from operon.count_crash($1, $2, $3, $4)

-- name: try_one
-- The time to try has come, and whoever is first tries one. The next trial is later, twice as much each time.
update operon.suspensions s
set tries = s.tries + 1, until = operon.clock() + make_interval(secs => least($2 * 2 ^ (s.tries + 1), $3))
where s.name = $1 and s.until <= operon.clock()
returning s.step, extract(epoch from s.until)::float8

-- name: lift
select operon.lift($1)
