-- The first version. `inbox` is replaced by the name of the schema.

-- The time of the inbox. Tests replace it.
CREATE FUNCTION inbox.clock() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS 'SELECT statement_timestamp()';

-- Positions in the order of arrival. A position is never used again.
CREATE SEQUENCE inbox.message_sequence AS bigint;

-- Numbers of leases, in the order in which they began: the first half of `dispatch.lease`.
CREATE SEQUENCE inbox.lease_number AS bigint;

-- Messages as they arrived. Rows never change.
CREATE TABLE inbox.message (
    sequence bigint PRIMARY KEY,
    endpoint text COLLATE "C" NOT NULL,
    webhook_id text COLLATE "C" NOT NULL,
    event_type text,
    event_id text,
    resource_id text,
    origin text NOT NULL CHECK (origin IN ('webhook', 'catch-up')),
    source inet,
    received_at timestamptz NOT NULL,
    expires_at timestamptz,
    headers text NOT NULL,
    body bytea NOT NULL,
    -- The message id first: the sender's ids rise with time, so new rows go to one place of the index.
    UNIQUE (webhook_id, endpoint)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- The state of each message: small rows, since they change. `due_at` is null unless the message is
-- scheduled, `lease` and the columns after it are null unless it is leased.
CREATE TABLE inbox.dispatch (
    sequence bigint PRIMARY KEY,
    expires_at timestamptz NOT NULL DEFAULT 'infinity',
    due_at timestamptz,
    lease uuid,
    leased_at timestamptz,
    lease_ends_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    -- How many attempts are in the history, with those that were deleted.
    ended integer NOT NULL DEFAULT 0,
    state text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
    endpoint text COLLATE "C" NOT NULL,
    worker text,
    last_error text,
    CHECK (state = 'pending' OR (lease IS NULL AND due_at IS NULL)),
    CHECK (lease IS NULL OR due_at IS NULL)
) WITH (
    -- Renewals of leases change no index, so that they fit into the same page (HOT).
    fillfactor = 80,
    -- Long errors are stored apart.
    toast_tuple_target = 256,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- Messages that may be leased, in dispatch order.
CREATE INDEX dispatch_ready ON inbox.dispatch (endpoint, expires_at, sequence)
    WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL;
CREATE UNIQUE INDEX dispatch_leased ON inbox.dispatch (lease) WHERE lease IS NOT NULL;
CREATE INDEX dispatch_scheduled ON inbox.dispatch (due_at) WHERE due_at IS NOT NULL;
-- For statistics. `CASE` keeps the server from reading this index instead of `dispatch_ready`.
CREATE INDEX dispatch_pending ON inbox.dispatch (endpoint, sequence)
    WHERE CASE state WHEN 'pending' THEN TRUE ELSE FALSE END;
CREATE INDEX dispatch_dead ON inbox.dispatch (sequence) WHERE state = 'dead';

-- The last attempts of each message.
CREATE TABLE inbox.attempt (
    sequence bigint,
    n integer,
    number integer NOT NULL,
    worker text NOT NULL,
    started_at timestamptz NOT NULL,
    duration interval,
    result text NOT NULL CHECK (result IN ('done', 'retry', 'dead', 'released', 'lost')),
    error text,
    PRIMARY KEY (sequence, n)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Endpoints whose messages are not leased.
CREATE TABLE inbox.paused (
    endpoint text COLLATE "C" PRIMARY KEY
);

-- How many messages each endpoint has, so that statistics do not count them: the sum of all rows of an
-- endpoint. Each statement adds a row with its changes, and the receivers add them up now and then. Rows
-- that were updated instead would gather versions while another transaction is open.
CREATE TABLE inbox.tally (
    endpoint text COLLATE "C" NOT NULL,
    pending bigint NOT NULL,
    scheduled bigint NOT NULL,
    done bigint NOT NULL,
    dead bigint NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE FUNCTION inbox.count_messages() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO inbox.tally (endpoint, pending, scheduled, done, dead)
        SELECT endpoint,
               count(*) FILTER (WHERE state = 'pending'),
               count(due_at),
               count(*) FILTER (WHERE state = 'done'),
               count(*) FILTER (WHERE state = 'dead')
        FROM added GROUP BY endpoint;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO inbox.tally (endpoint, pending, scheduled, done, dead)
        SELECT endpoint, sum(pending), sum(scheduled), sum(done), sum(dead)
        FROM (
            SELECT endpoint, (state = 'pending')::int AS pending, (due_at IS NOT NULL)::int AS scheduled,
                   (state = 'done')::int AS done, (state = 'dead')::int AS dead
            FROM added
            UNION ALL
            SELECT endpoint, -(state = 'pending')::int, -(due_at IS NOT NULL)::int,
                   -(state = 'done')::int, -(state = 'dead')::int
            FROM removed
        ) AS changes
        GROUP BY endpoint
        HAVING sum(pending) <> 0 OR sum(scheduled) <> 0 OR sum(done) <> 0 OR sum(dead) <> 0;
    ELSE
        INSERT INTO inbox.tally (endpoint, pending, scheduled, done, dead)
        SELECT endpoint,
               -count(*) FILTER (WHERE state = 'pending'),
               -count(due_at),
               -count(*) FILTER (WHERE state = 'done'),
               -count(*) FILTER (WHERE state = 'dead')
        FROM removed GROUP BY endpoint;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER count_inserted AFTER INSERT ON inbox.dispatch
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION inbox.count_messages();
CREATE TRIGGER count_updated AFTER UPDATE ON inbox.dispatch
    REFERENCING OLD TABLE AS removed NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION inbox.count_messages();
CREATE TRIGGER count_deleted AFTER DELETE ON inbox.dispatch
    REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION inbox.count_messages();
