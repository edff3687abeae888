"""What the guarantees are proved with: an application, processes that run it, and everything that can kill them.

    application    operations of every kind, and the ledger that they write to
    sites          every message to Postgres has a label; the process dies, hangs or stops at a chosen one
    life           one process that runs the application, from its start to its end
    witness        the outside world: hears each call of a communicator, and is no table of the same database
    case           one database and the lives that are spent on it; what has to be true of them

A life by hand, killed before its first flush:

    OPERON_DATABASE_URL=... WITNESS=/tmp/witness KILL='[{"label": "flush start everything"}]' \\
        STARTS='[{"workflow": "everything", "uuid": "...", "args": ["t"]}]' python -m tests.guarantees.worker
"""
